"""Pictures of datasets and collections, and what all pictures share. What draws is imported when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...common.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ...tasks.data.dataset import OfflineDataset

SUFFIXES = (".png", ".svg", ".pdf")


def picture_suffix(out: Path) -> str:
    """The suffix of a picture's name. Raises UserError for one that says no format."""
    if out.suffix not in SUFFIXES:
        raise UserError(f"{out}: expected a name that ends in .png, .svg or .pdf")
    return out.suffix


@contextmanager
def styled() -> Iterator[None]:
    """What all pictures look like. Afterwards matplotlib's settings are the caller's again; its backend is not touched."""
    import matplotlib
    import seaborn as sns

    with matplotlib.rc_context():
        sns.set_theme(
            style="whitegrid",
            context="notebook",
            palette="colorblind",
            color_codes=False,  # these would give "r" and "b" other colours for the caller, too
            rc={"hatch.linewidth": 0.5},
        )
        yield


@styled()
def collection_curves(files: Sequence[Path], out: Path) -> None:
    """Returns of SAC online against environment steps, one panel per `curve.csv`: 10 deterministic episodes, mean and
    sample standard deviation, and the exploration episodes since the last look."""
    columns = min(len(files), 4)
    rows = -(-len(files) // columns)
    figure, axes = panels(rows, columns, (4.6 * columns, 3.4 * rows))
    for axis in axes.flat[len(files) :]:
        axis.set_axis_off()
    for axis, file in zip(axes.flat, files, strict=False):
        _collection_curve(axis, file)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    save(figure, out)


def _collection_curve(axis: Axes, file: Path) -> None:
    import pandas as pd

    try:
        curve = pd.read_csv(file)
        steps, mean, std = (curve[name] for name in ("steps", "return_mean", "return_std"))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{file} is not a collection curve ({error}); `data collect` writes one as curve.csv") from None
    axis.plot(steps, mean, label="deterministic policy")
    axis.fill_between(steps, mean - std, mean + std, alpha=0.25)
    axis.plot(steps, curve["episode_return_mean"], label="while exploring", linewidth=1, alpha=0.8)
    axis.set(title=file.stem, xlabel="environment steps", ylabel="undiscounted return")
    short_ticks(axis)


@styled()
def dataset_picture(dataset: OfflineDataset, title: str, out: Path) -> None:
    """Returns of the episodes: their distribution, along the log, and against the episodes' lengths."""
    import seaborn as sns

    whole = dataset.whole_episodes()
    returns, lengths, starts = dataset.episode_returns()[whole], dataset.episode_lengths()[whole], dataset.episodes()[0][whole]
    figure, ((distribution, along, by_length),) = panels(1, 3, (15, 3.8))
    sns.histplot(x=returns, bins=min(50, max(5, len(returns) // 4)), ax=distribution)
    distribution.axvline(returns.mean(), color="black", linestyle="--", linewidth=1, label=f"mean {returns.mean():,.0f}")
    distribution.axvline(returns.max(), color="black", linestyle=":", linewidth=1, label=f"max {returns.max():,.0f}")
    distribution.set(xlabel="undiscounted return of an episode", ylabel="episodes")
    distribution.legend()
    dots = {"s": 9, "linewidth": 0, "alpha": 0.6, "rasterized": True}
    along.scatter(starts, returns, **dots)
    along.set(xlabel="first row of the episode in the log", ylabel="return")
    short_ticks(along)
    by_length.scatter(lengths, returns, **dots)
    by_length.set(xlabel="length of the episode, steps", ylabel="return")
    figure.suptitle(f"{title}: {len(dataset):,} rows, {len(whole):,} episodes")
    save(figure, out)


def panels(rows: int, columns: int, size: tuple[float, float]) -> tuple[Figure, Any]:
    """A figure of `size` inches and its axes, (rows, columns)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")  # none of pyplot's, which may have a window
    return figure, figure.subplots(rows, columns, squeeze=False)


def short_ticks(axis: Axes) -> None:
    """100 k rather than 100000: the labels would run into one another."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))


def save(figure: Figure, out: Path, about: str = "") -> None:
    """Writes the figure, in the format of the file's name; `about`, if anything, is kept in the file."""
    try:
        key = "Subject" if picture_suffix(out) == ".pdf" else "Description"
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=110, metadata={key: about} if about else None)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name another file") from None
