"""How an algorithm is drawn: a colour, a marker and a line style of its own, the same in every picture and on every page.

Each of them alone tells it from the package's other algorithms, so that pictures are readable in grey.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .groups import Group, in_columns
from .paper import DATASET_COLUMNS, HEADINGS, PROBE_COLUMNS

# Sixteen of each, so that each of the package's own algorithms has its own; the last markers are stars of so many points.
MARKERS: tuple[Any, ...] = (*"oDs^vPX<>p*hd", (4, 1, 45), (3, 1, 0), (8, 1, 0))
DASHES: tuple[Any, ...] = (
    *("-", (0, (5, 1.5)), (0, (1, 1)), (0, (4, 1, 1, 1)), (0, (8, 2)), (0, (4, 1, 1, 1, 1, 1)), (0, (2, 2))),
    *((0, (8, 1, 2, 1)), (0, (1, 2)), (0, (6, 1, 1, 1, 1, 1, 1, 1)), (0, (3, 1)), (0, (8, 4)), (0, (3, 1, 3, 1, 1, 1))),
    *((0, (1, 1, 1, 3)), (0, (12, 2)), (0, (4, 1, 4, 3))),
)
HATCHES = ("", "//", "\\\\", "xx", "--", "||", "++", "/", "\\", "x", "o", ".", "*", "-", "|", "..")


class Style(NamedTuple):
    """How an algorithm is drawn."""

    color: Any
    marker: str
    dash: Any
    hatch: str


def styles(groups: Iterable[Group]) -> dict[str, Style]:
    """How each label is drawn: a registered algorithm always alike, the paper's first, then the package's others, then those of
    plug-ins; labels that are no algorithm's name after them, in the order of columns."""
    import seaborn as sns

    from ...algorithms.learning.registry import all_algorithms

    colors = [*sns.color_palette("colorblind", 10), *sns.color_palette("dark", 10)]
    learned = [name for name in HEADINGS if name not in {**DATASET_COLUMNS, **PROBE_COLUMNS}]
    labels = [group.label for group in in_columns(groups)]
    places = {label: place for place, label in enumerate(dict.fromkeys([*learned, *all_algorithms(), *labels]))}
    return {
        label: Style(
            colors[place % len(colors)],
            MARKERS[place % len(MARKERS)],
            DASHES[(place + 3 * (place // len(MARKERS))) % len(DASHES)],  # a marker's second time has another line, and hatch
            HATCHES[(place + 5 * (place // len(MARKERS))) % len(HATCHES)],
        )
        for label, place in ((label, places[label]) for label in dict.fromkeys(labels))
    }
