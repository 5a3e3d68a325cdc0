"""Pictures of run records: learning curves, bars, performance profiles and a heat map, each with its caption.

Numbers are those of the tables: groups of seeds, Student's 95 % intervals of the mean from three seeds on.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ...common.errors import UserError, unknown
from ..runs.records import Run, identity_hash
from .aggregates import Family, families
from .choices import PICTURES
from .formats import span
from .groups import (
    Group,
    by_row,
    dataset_names,
    facts_of_data,
    groups_in,
    in_columns,
    in_unit,
    last_step,
    unit_of,
    without_task,
)
from .notes import provenance
from .paper import DATASET_COLUMNS, printed_number
from .plots import panels, picture_suffix, save, short_ticks, styled
from .statistics import (
    FEWEST,
    FEWEST_DRAWN,
    bootstrap_interval,
    get_metric,
    mean,
    mean_interval,
    pooled,
    share_above,
    standard_deviation,
)
from .styles import Style, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAPER = "the paper's number"
DENSE = 150  # evaluations, beyond which a curve is drawn with a running mean
SMOOTHED = 40  # parts of a run, over one of which the mean runs
MOST_COLUMNS = 3  # of panels: more make the words too small on a page
MOST_LETTERS = 50  # below a panel side by side
DARK = 0.5  # shades below it want white words, to be read
MOST_STEPS = 100  # of a profile: between as many numbers it is drawn exactly, of more these quantiles


class Panel(NamedTuple):
    """A row of the table of scores: a task on one dataset, with the groups that have a number, in the order of columns.

    data: what is known of the dataset, as the table says it.
    """

    title: str
    unit: str
    groups: Sequence[Group]
    data: Mapping[str, Any]


@styled()
def draw(name: str, runs: Iterable[Run], folder: str, out: Path, metric: str | None = None, faults: Sequence[str] = ()) -> None:
    """Writes picture `name` of `PICTURES` to `out`, a .png, .svg or .pdf.

    metric: what stands for a run, of those of the tables; learning curves show every evaluation and take none. faults: what
    was not believed, for the caption. Raises UserError for a name, a metric or a file that is none of these, and without runs
    that give a number.
    """
    if name not in PICTURES:
        raise unknown("picture", name, PICTURES, "mopo-bench plot --help")
    picture_suffix(out)
    if name == "curves" and metric is not None:
        raise UserError(f"--metric {metric}: learning curves show every evaluation, leave it out")
    get_metric(metric or "last")
    groups = groups_in(runs, folder)
    if not any(group.counted for group in groups):
        raise UserError(f"no run in {folder} gives a number yet: `mopo-bench status --results FOLDER` says why")
    figure, said = DRAWN[name](groups, metric or "last")
    if faults:
        said = [*said, f"Not believed, and not shown: {'; '.join(faults)}."]
    caption = [*said, " ".join(provenance(groups))]
    _caption(figure, caption)
    save(figure, out, "\n".join([*caption, f"Numbers: {_digest(groups)}"]))


def _digest(groups: Sequence[Group]) -> str:
    """Of all numbers that a picture may show of these groups: whether it shows them can then be told from its file."""
    runs = [run for group in groups for run in group.runs]
    returns = [[(row["step"], row["return_mean"]) for row in run.evaluations] for run in runs]
    return identity_hash({"runs": [(run.identity, run.seed, run.state) for run in runs], "returns": returns})


def curves(groups: Sequence[Group], metric: str = "last", looks: Mapping[str, Style] | None = None) -> tuple[Figure, list[str]]:
    """A panel for each task and dataset: mean return or score of each algorithm against gradient steps.

    looks: how labels are drawn, where the picture is one of several; by default as `styles` says of these groups.
    """
    looks, rows = looks or styles(groups), rows_of(groups)
    figure, axes = _grid(len(rows), (4.7, 3.9))
    for axis, row in zip(axes, rows, strict=True):
        for group in row.groups:
            _curve(axis, group, row.unit, looks[group.label])
        _reference_lines(axis, row, looks)
        axis.set(title=row.title, xlabel="gradient steps", ylabel=_meaning(row.unit), ylim=_span(row))
        short_ticks(axis)
    _legend(figure, axes, looks, groups)
    return figure, [
        f"Mean over seeds at each evaluation; shaded: Student's 95 % interval of it, from {FEWEST} seeds on, cut where it goes "
        "beyond the seeds and the lines; of two seeds both are drawn, thin. A curve ends where the first of its seeds does.",
        *_dense_note(groups),
        *_paper_note(rows),
    ]


def _dense_note(groups: Sequence[Group]) -> list[str]:
    """How curves of more than `DENSE` evaluations are drawn, where there is one."""
    if all(len(_common_steps(group)) <= DENSE for group in groups):
        return []
    return [
        f"Of more than {DENSE} evaluations each is drawn thin, and what is shaded is of these. Thick is their running mean "
        f"over a {SMOOTHED}th of the run: its end is a mean, too, the thin line's is the last evaluation."
    ]


def _common_steps(group: Group) -> list[int]:
    """The steps at which all of its seeds were evaluated."""
    seeds = [{row["step"] for row in run.evaluations} for run in group.counted]
    return sorted(set.intersection(*seeds)) if seeds else []


def _curve(axis: Axes, group: Group, unit: str, look: Style) -> None:
    """The mean over the seeds at the steps at which all of them were evaluated, with its interval."""
    by_seed = [{row["step"]: in_unit(unit, group.task, row["return_mean"]) for row in run.evaluations} for run in group.counted]
    steps = _common_steps(group)
    values = np.array([[seed[step] for step in steps] for seed in by_seed])  # (seeds, steps)
    if not steps:
        return
    every = max(1, len(steps) // 8)  # evaluations from one marker to the next
    means = values.mean(0)
    if len(steps) > DENSE:  # a thick line would hide itself: the evaluations stay, thin, behind their running mean
        if len(values) != 2:  # which are both drawn thin themselves
            axis.plot(steps, means, color=look.color, linewidth=0.5, alpha=0.45)
        means = running_mean(means, len(steps) // SMOOTHED | 1)
    axis.plot(
        steps,
        means,
        color=look.color,
        linestyle=look.dash,
        marker=look.marker,
        markevery=every,
        markersize=5,
        linewidth=1.6,
    )
    if len(values) == 2:
        axis.plot(steps, values.T, color=look.color, linestyle=look.dash, linewidth=0.6, alpha=0.7)
    if len(values) >= FEWEST:
        low, high = np.transpose([mean_interval(column) or (mean(column),) * 2 for column in values.T.tolist()])
        axis.fill_between(steps, low, high, color=look.color, alpha=0.18, linewidth=0)


def _span(row: Panel) -> tuple[float, float] | None:
    """What the seeds and the lines of a panel span, with a margin: an interval of few seeds would else squeeze all curves."""
    best = _best_episode(row)
    known = [*paper_numbers(row).values(), *([] if best is None else [best])]
    for group in row.groups:
        known += [in_unit(row.unit, group.task, each["return_mean"]) for run in group.counted for each in run.evaluations]
    low, high = min(known, default=0.0), max(known, default=0.0)
    return (low - 0.05 * (high - low), high + 0.05 * (high - low)) if low < high else None


def running_mean(values: Sequence[float], width: int) -> np.ndarray:
    """The mean of the `width` values around each, an odd number; of fewer at both ends."""
    import pandas as pd

    return pd.Series(values).rolling(width, center=True, min_periods=1).mean().to_numpy()


def _reference_lines(axis: Axes, row: Panel, looks: Mapping[str, Style]) -> None:
    """The best episode of the dataset, and the paper's numbers: dotted, ending in the hollow marker of their algorithm."""
    if (best := _best_episode(row)) is not None:
        axis.axhline(best, color="0.35", linewidth=1, zorder=1)
    for label, value in paper_numbers(row).items():
        look = looks[label]
        axis.axhline(value, color=look.color, linewidth=1, linestyle=(0, (1, 3)), zorder=1)
        axis.plot(
            1.02,
            value,
            marker=look.marker,
            color=look.color,
            markerfacecolor="none",
            markersize=6,
            transform=axis.get_yaxis_transform(),
            clip_on=False,
        )


def _best_episode(row: Panel) -> float | None:
    """What the table of scores has as Batch Max."""
    best = row.data.get(DATASET_COLUMNS["batch max"])
    return None if best is None else in_unit(row.unit, row.groups[0].task, best)


def bars(groups: Sequence[Group], metric: str = "last") -> tuple[Figure, list[str]]:
    """A panel for each task and dataset: the mean of each algorithm with its interval, its seeds and the paper's number.

    The bars lie, so that names of any length stand beside them in lines of their own.
    """
    looks, rows = styles(groups), rows_of(groups)
    names = {group.label: _wrapped(group.heading, 26) for row in rows for group in row.groups}
    lines = max(sum(1 + names[group.label].count("\n") for group in row.groups) + len(row.groups) for row in rows)
    longest = max(len(line) for name in names.values() for line in name.splitlines())
    figure, axes = _grid(len(rows), (4.0 + 0.09 * longest, 1.4 + 0.2 * lines))
    for axis, row in zip(axes, rows, strict=True):
        printed = paper_numbers(row)
        for place, group in enumerate(row.groups):
            _bar(axis, place, list(group.values(metric, row.unit).values()), looks[group.label], printed.get(group.label))
        if (best := _best_episode(row)) is not None:
            axis.axvline(best, color="0.35", linewidth=1, zorder=1)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_yticks(range(len(row.groups)), [names[group.label] for group in row.groups])
        axis.grid(False, axis="y")
        axis.set_axisbelow(True)
        axis.set(title=row.title, xlabel=_meaning(row.unit), ylim=(len(row.groups) - 0.4, -0.6))  # the first one above
    from matplotlib.lines import Line2D

    shown = [Line2D([], [], color="0.35", linewidth=1, label="the dataset's best episode")]
    shown.append(Line2D([], [], color="black", marker="o", markerfacecolor="white", markersize=4, linestyle="", label="a seed"))
    if any(map(paper_numbers, rows)):
        shown.append(Line2D([], [], color="black", marker="D", linestyle="", label=PAPER))
    figure.legend(handles=shown, loc="outside upper center", ncols=len(shown), frameon=False, fontsize="small")
    return figure, [
        f"Bars: the mean over seeds of {get_metric(metric).meaning}; whiskers: Student's 95 % interval of it, from {FEWEST} "
        "seeds on.",
        *_paper_note(rows),
    ]


def _bar(axis: Axes, place: int, values: Sequence[float], look: Style, printed: float | None) -> None:
    centre, interval = mean(values), mean_interval(values)
    axis.barh(place, centre, height=0.7, color=look.color, edgecolor="0.25", linewidth=0.6, hatch=look.hatch, alpha=0.7)
    if interval is not None:
        low, high = interval
        axis.errorbar(centre, place, xerr=[[centre - low], [high - centre]], color="black", capsize=4, linewidth=1.2)
    spread = np.linspace(-0.22, 0.22, len(values)) if len(values) > 1 else [0.0]
    axis.plot(
        values, place + np.asarray(spread), "o", color="black", markerfacecolor="white", markersize=4, markeredgewidth=0.8
    )
    if printed is not None:
        axis.plot(printed, place, "D", color="black", markersize=6, zorder=4)


def profile(groups: Sequence[Group], metric: str = "last") -> tuple[Figure, list[str]]:
    """A panel for all tasks with scores, and one for each other task: the share of runs above each number."""
    looks = styles(groups)
    found, notes = families(groups, metric)
    figure, axes = _grid(len(found), (5.2, 4.1))
    for axis, family in zip(axes, found, strict=True):
        _profile(axis, family, looks)
    _legend(figure, axes, looks, groups, references=False)
    pooled_tasks = any(len({group.task for group in members}) > 1 for family in found for members in family.groups.values())
    together = " of all tasks of a panel together" * pooled_tasks
    return figure, [
        f"Share of runs above a number, all seeds{together}; each seed counts with {get_metric(metric).meaning}. "
        f"Shaded: 95 % interval at each number by stratified bootstrap, from {FEWEST_DRAWN} seeds of each task on.",
        *notes,
    ]


def _profile(axis: Axes, family: Family, looks: Mapping[str, Style]) -> None:
    everything = np.concatenate([pooled(scores) for scores in family.scores.values()])
    margin = 0.03 * max(float(np.ptp(everything)), 1e-9)
    inner = np.unique(everything)
    if len(inner) > MOST_STEPS:
        inner = np.quantile(everything, np.linspace(0, 1, MOST_STEPS))
    limits = np.concatenate([[inner[0] - margin], inner, [inner[-1] + margin]])
    for label, scores in family.scores.items():
        look = looks[label]
        shares = [float(share_above(scores, limit)) for limit in limits]
        axis.plot(
            limits,
            shares,
            color=look.color,
            linestyle=look.dash,
            marker=look.marker,
            markevery=(0.02 * (1 + list(looks).index(label) % 5), 0.12),
            markersize=5,
            linewidth=1.6,
            drawstyle="steps-post",
        )
        intervals = [bootstrap_interval(lambda drawn, limit=limit: share_above(drawn, limit), scores) for limit in limits]
        if known := [each for each in intervals if each is not None]:
            low, high = np.transpose(known)
            axis.fill_between(limits, low, high, color=look.color, alpha=0.1, linewidth=0, step="post")
    axis.set(title=family.name, xlabel=_meaning(family.unit), ylabel="share of runs above", ylim=(-0.03, 1.03))


def heatmap(groups: Sequence[Group], metric: str = "last") -> tuple[Figure, list[str]]:
    """Tasks and datasets down, algorithms across: means as numbers, their places between worst and best of a row as shades."""
    rows = rows_of(groups)
    heads = {group.label: group.heading for group in in_columns(groups) if group.counted}
    means = np.full((len(rows), len(heads)), np.nan)
    words = np.full(means.shape, "–", dtype=object)
    for place, row in enumerate(rows):
        for group in row.groups:
            column = list(heads).index(group.label)
            means[place, column] = mean(list(group.values(metric, row.unit).values()))
            diverged = f"\n{group.diverged_in_words}" * bool(group.diverged)
            words[place, column] = f"{means[place, column]:z,.1f}{diverged}"
    low, high = np.nanmin(means, 1, keepdims=True), np.nanmax(means, 1, keepdims=True)
    shades = (means - low) / np.where(high > low, high - low, 1.0)
    names = [_wrapped(head, 14) for head in heads.values()]
    longest = max(len(line) for name in names for line in name.splitlines())
    upright = longest > 12  # more than stands below a column
    height = max(0.9, 0.62 * len(rows)) + (0.11 * longest if upright else 0.5)
    figure, ((axis,),) = panels(1, 1, (max(6.5, 2.9 + 1.05 * len(heads)), 0.5 + height))
    _shaded(axis, shades, words, ("worst\nof its row", "best\nof its row"))
    axis.set_xticklabels(names, rotation=90 if upright else 0)
    axis.set_yticklabels([f"{row.title} ({row.unit})" for row in rows], rotation=0)
    return figure, [
        f"Mean over seeds of {get_metric(metric).meaning}, in the unit beside the task; –: no run to show. The shade goes from "
        "the row's worst mean to its best, and says nothing of how far apart these are, or of chance.",
    ]


def sweep(groups: Sequence[Group], metric: str = "last") -> tuple[Figure, list[str]]:
    """A panel for each task, dataset and algorithm that was run at several values of one or two settings: a grid of means.

    Raises UserError where none was. An algorithm of which more than two settings differ has no panel, and the caption says so.
    """
    found: list[tuple[Panel, str, list[str], list[Group]]] = []
    notes: list[str] = []
    for row in rows_of(groups):
        for name in dict.fromkeys(group.algorithm for group in row.groups):
            members = [group for group in row.groups if group.algorithm == name]
            keys = varied_settings(members)
            if len({repr([group.cell["config"].get(key) for key in keys]) for group in members}) < len(members):
                notes.append(
                    f"Not shown: {row.title}, {members[0].title}, of which versions of the code or windows of the data differ."
                )
            elif 1 <= len(keys) <= 2:
                found.append((row, members[0].title, keys, members))
            elif keys:
                notes.append(f"Not shown: {row.title}, {members[0].title}: {len(keys)} settings differ ({', '.join(keys)}).")
    if not found:
        raise UserError(" ".join(["no algorithm was run at several values of one or two settings on one dataset.", *notes]))
    figure, axes = _grid(len(found), (5.6, 4.2))
    for axis, (row, title, keys, members) in zip(axes, found, strict=True):
        _sweep(axis, row.unit, keys, members, metric)
        axis.set_title(f"{title}, {row.title}", fontsize="medium")
    return figure, [
        f"Mean over seeds of {get_metric(metric).meaning}, with their sample standard deviation; –: no run to show. The shade "
        "goes from the panel's worst mean to its best, and says nothing of chance.",
        *notes,
    ]


def varied_settings(groups: Sequence[Group]) -> list[str]:
    """The settings in which groups of one algorithm differ, in the order of its configuration."""
    names = dict.fromkeys(name for group in groups for name in group.cell["config"])
    return [name for name in names if len(_values_of(name, groups)) > 1]


def _values_of(key: str, groups: Sequence[Group]) -> list[Any]:
    """The values of a setting, numbers in their order; None where a record is older than the setting."""
    there = list({repr(value): value for group in groups for value in [group.cell["config"].get(key)]}.values())
    return sorted(there) if all(isinstance(value, (int, float)) for value in there) else there


def _sweep(axis: Axes, unit: str, keys: Sequence[str], groups: Sequence[Group], metric: str) -> None:
    """One panel: the values of the first setting down, those of the second across; of one setting alone, across."""
    rows, columns = [_values_of(key, groups) for key in keys] if len(keys) == 2 else [[""], _values_of(keys[0], groups)]
    means = np.full((len(rows), len(columns)), np.nan)
    ends = {last_step(run) for group in groups for run in group.counted}
    words = np.full(means.shape, "–", dtype=object)
    for group in groups:
        said = [group.cell["config"].get(key) for key in keys]
        place = rows.index(said[0]) if len(keys) == 2 else 0, columns.index(said[-1])
        seeds = list(group.values(metric, unit).values())
        means[place] = mean(seeds)
        spread = f"\n± {deviation:,.1f}" if (deviation := standard_deviation(seeds)) is not None else ""
        words[place] = f"{means[place]:z,.1f}{spread}" + f"\n{group.diverged_in_words}" * bool(group.diverged)
        if group.counted and len(ends) > 1:
            words[place] += f"\n{span(map(last_step, group.counted))} steps"
    low, high = np.nanmin(means), np.nanmax(means)
    _shaded(axis, (means - low) / (high - low or 1.0), words, (f"{low:z,.1f}", f"{high:z,.1f}"))
    crowded = max(len(str(column)) for column in columns) * len(columns) > MOST_LETTERS
    axis.set_xticklabels(map(str, columns), rotation=90 if crowded else 0)
    axis.set_yticklabels(map(str, rows), rotation=0)
    axis.set(xlabel=keys[-1], ylabel=keys[0] if len(keys) == 2 else "")


def _shaded(axis: Any, shades: Any, words: Any, ends: tuple[str, str]) -> None:
    """A grid of words on shades from 0 to 1, which `ends` name on the colour bar; a dash where the shade is not a number."""
    import seaborn as sns
    from matplotlib.ticker import NullLocator

    axis.set_facecolor("white")
    axis.grid(False)
    sns.heatmap(
        shades,
        ax=axis,
        annot=words,
        fmt="",
        cmap="cividis",
        vmin=0,
        vmax=1,
        linewidths=1,
        annot_kws={"fontsize": 9},
        cbar_kws={"ticks": [0, 1], "shrink": 0.9},
    )
    for word, shade in zip(axis.texts, shades[~np.isnan(shades)], strict=True):  # seaborn's own choice is hard to read on tan
        word.set_color("white" if shade < DARK else "0.1")
    bar = axis.collections[0].colorbar
    bar.ax.set_yticklabels(ends, fontsize=8)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    for down, across in np.argwhere(np.isnan(shades)):
        axis.text(across + 0.5, down + 0.5, "–", ha="center", va="center")


DRAWN: dict[str, Callable[[Sequence[Group], str], tuple[Any, list[str]]]] = {
    "curves": curves,
    "bars": bars,
    "profile": profile,
    "heatmap": heatmap,
    "sweep": sweep,
}


def rows_of(groups: Sequence[Group]) -> list[Panel]:
    """The rows of the table of scores in which an algorithm has a number."""
    names, found = dataset_names(groups), []
    for key, of_row in by_row(groups):
        members = list(of_row)
        if here := in_columns(group for group in members if group.counted):
            found.append(Panel(_row_title(here[0], names[key]), unit_of(key.task), here, facts_of_data(members)))
    return found


def _row_title(group: Group, dataset: str) -> str:
    return f"{group.row}, {without_task(dataset)}"


def paper_numbers(row: Panel) -> dict[str, float]:
    """By label, what the paper prints for the algorithms of a row, where they are shown in its unit and as registered."""
    found = {}
    for group in row.groups:
        printed = printed_number(group.task, group.algorithm)
        if printed and printed[0] == row.unit and group.label == group.algorithm and not group.key.parameters:
            found[group.label] = printed[1].mean
    return found


def _grid(count: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A figure with `count` panels of `size` inches."""
    columns = 2 if count == 4 else min(count, MOST_COLUMNS)  # two rows of two rather than three and one
    lines = -(-count // columns)
    figure, axes = panels(lines, columns, (max(7.5, size[0] * columns), size[1] * lines))
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    return figure, list(axes.flat[:count])


def _legend(
    figure: Figure, axes: Sequence[Axes], looks: Mapping[str, Style], groups: Iterable[Group], references: bool = True
) -> None:
    from matplotlib.lines import Line2D

    heads = {group.label: group.heading for group in in_columns(groups) if group.counted}
    shown = [
        Line2D([], [], color=looks[label].color, marker=looks[label].marker, linestyle=looks[label].dash, label=head)
        for label, head in heads.items()
    ]
    if references:
        shown.append(Line2D([], [], color="0.35", linewidth=1, label="the dataset's best episode"))
        if any(map(paper_numbers, rows_of(list(groups)))):
            look: dict[str, Any] = {
                "color": "black",
                "marker": "o",
                "markerfacecolor": "none",
                "linestyle": (0, (1, 3)),
                "linewidth": 1,
            }
            shown.append(Line2D([], [], label=f"{PAPER} (by colour and marker)", **look))
    columns = columns_of([str(line.get_label()) for line in shown], figure.get_size_inches()[0])
    figure.set_size_inches(figure.get_size_inches() + np.array([0.0, 0.21 * (-(-len(shown) // columns) - 2)]))  # a line is 0.21
    figure.legend(handles=shown, loc="outside upper center", ncols=columns, handlelength=3.2, frameon=False, fontsize="small")


def columns_of(labels: Sequence[str], width: float) -> int:
    """The most columns of a small legend, filled one after another, that `width` inches hold; 1 where none do."""

    def inches(count: int) -> float:
        columns = (part for part in np.array_split(np.array(labels, dtype=object), count))
        return sum(0.9 + 0.085 * max(map(len, column)) for column in columns)  # a handle, a gap and ten points a letter

    return next((count for count in range(len(labels), 1, -1) if inches(count) <= width), 1)


def _paper_note(rows: Sequence[Panel]) -> list[str]:
    said = (
        "The paper's numbers: on its own data (D4RL v0; that of Table 2 was never published), at its own number of steps; a "
        "reference, not a pass mark."
    )
    return [said] if any(map(paper_numbers, rows)) else []


def _caption(figure: Figure, paragraphs: Sequence[str]) -> None:
    """Paragraphs below the figure, in lines as wide as it is."""
    width = int(figure.get_size_inches()[0] * 15)  # characters of 8 points
    text = "\n".join(line for each in paragraphs for line in textwrap.wrap(each, width, break_on_hyphens=False))
    figure.set_size_inches(figure.get_size_inches() + np.array([0.0, 0.14 * (text.count("\n") + 2)]))
    figure.supxlabel(text, fontsize=8, x=0.01, ha="left", color="0.25", linespacing=1.3)


def _meaning(unit: str) -> str:
    return "normalised score" if unit == "score" else "undiscounted return"


def _wrapped(heading: str, width: int) -> str:
    """In lines of at most so many characters, but for words that are longer."""
    return "\n".join(textwrap.wrap(heading, width, break_long_words=False, break_on_hyphens=False))
