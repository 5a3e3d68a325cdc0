"""Pictures, made from data files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files only; a window system may be absent
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from ...common.errors import UserError
from ...tasks.data.dataset import OfflineDataset


def collection_curves(files: Sequence[Path], out: Path) -> None:
    """Returns of SAC online against environment steps, one panel per `curve.csv`: 10 deterministic episodes, mean and
    sample standard deviation, and the exploration episodes since the last look."""
    sns.set_theme(style="whitegrid", context="notebook")
    columns = min(len(files), 4)
    rows = -(-len(files) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.6 * columns, 3.4 * rows), squeeze=False, layout="constrained")
    for axis in axes.flat[len(files) :]:
        axis.set_axis_off()
    for axis, file in zip(axes.flat, files, strict=False):
        try:
            curve = pd.read_csv(file)
            steps, mean, std = (curve[name] for name in ("steps", "return_mean", "return_std"))
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{file} is not a collection curve ({error}); `data collect` writes one as curve.csv") from None
        axis.plot(steps, mean, label="deterministic policy")
        axis.fill_between(steps, mean - std, mean + std, alpha=0.25)
        axis.plot(steps, curve["episode_return_mean"], label="while exploring", linewidth=1, alpha=0.8)
        axis.set(title=file.stem, xlabel="environment steps", ylabel="undiscounted return")
        _short_ticks(axis)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    _save(figure, out)


def dataset_picture(batch: OfflineDataset, title: str, out: Path) -> None:
    """Returns of the episodes: their distribution, along the log, and against the episodes' lengths."""
    returns, lengths, starts = batch.episode_returns(), batch.episode_lengths(), batch.episodes()[0]
    sns.set_theme(style="whitegrid", context="notebook")
    figure, axes = plt.subplots(1, 3, figsize=(15, 3.8), layout="constrained")
    sns.histplot(x=returns, bins=min(50, max(5, len(returns) // 4)), ax=axes[0])
    axes[0].axvline(returns.mean(), color="black", linestyle="--", linewidth=1, label=f"mean {returns.mean():,.0f}")
    axes[0].axvline(returns.max(), color="black", linestyle=":", linewidth=1, label=f"max {returns.max():,.0f}")
    axes[0].set(xlabel="undiscounted return of an episode", ylabel="episodes")
    axes[0].legend()
    dots = {"s": 9, "linewidth": 0, "alpha": 0.6, "rasterized": True}
    axes[1].scatter(starts, returns, **dots)
    axes[1].set(xlabel="first row of the episode in the log", ylabel="return")
    _short_ticks(axes[1])
    axes[2].scatter(lengths, returns, **dots)
    axes[2].set(xlabel="length of the episode, steps", ylabel="return")
    figure.suptitle(f"{title}: {len(batch):,} rows, {len(returns):,} episodes")
    _save(figure, out)


def _short_ticks(axis: Axes) -> None:
    """100 k rather than 100000: the labels would run into one another."""
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.xaxis.set_major_locator(MaxNLocator(5))


def _save(figure: Figure, out: Path) -> None:
    if out.suffix not in (".png", ".svg", ".pdf"):
        raise UserError(f"{out}: expected a name that ends in .png, .svg or .pdf")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=110)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; name another file") from None
    finally:
        plt.close(figure)
