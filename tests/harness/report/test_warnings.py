"""What a run says of itself is marked in its entry and told under every table."""

import json

import pytest
from mopo_bench.harness.report.tables import render, scores_table, table1
from mopo_bench.harness.runs.records import overvalued, warnings

POSSIBLE, IMPOSSIBLE = [(18.0, 350.0), (200.0, 350.0)], [(18.0, 350.0), (678.0, 350.0)]
SAID = "the data itself is punished"


@pytest.fixture
def marked(records):
    records.add([[80, 25], [70, 40], [60, 20]], values=[POSSIBLE, IMPOSSIBLE, IMPOSSIBLE], warnings=[{}, {"rewards": SAID}, {}])
    records.add([[80, 25]], algorithm="sac", values=[[(1.0, None), (1e9, None)]])  # of a problem that is not discounted
    records.add([[80, 25]], algorithm="bc")
    return records


def test_marked_and_told_in_every_table(marked):
    for build in (table1, scores_table):
        entries = {entry.algorithm: entry for row in build(marked.runs()).rows for entry in row if entry.seeds}
        assert {name: entry.overvalued for name, entry in entries.items()} == {"mopo": 2, "sac": 0, "bc": 0}
        assert entries["mopo"].lines()[0].endswith("‡") and "‡" not in "".join(entries["sac"].lines())
        told = [note for note in build(marked.runs()).notes if note.startswith("‡")]
        assert told == [
            "‡ hopper-medium mopo: the critics' mean value exceeds what the rewards allow in 2 of 3 seeds (seed 1 at step "
            "1,000,000: 678, of at most 350)."
        ]
        assert f"hopper-medium mopo, 1 of 3 seeds (seed 1): {SAID}." in build(marked.runs()).notes


@pytest.mark.parametrize(
    "said, note",
    [
        (["cut off", None, "cut off"], "2 of 3 seeds (seeds 0, 2): cut off."),
        (["cut off at 5", "cut off at 7", "cut off at 5"], "3 of 3 seeds: cut off at 5 (in the words of seed 0)."),
        ([None, "cut off"] + ["cut off"] * 10, "11 of 12 seeds: cut off."),
    ],
)
def test_which_seeds_a_warning_is_for(records, said, note):
    records.add([[80, 25]] * len(said), warnings=[{"fit": text} if text else {} for text in said])
    assert f"hopper-medium mopo, {note}" in scores_table(records.runs()).notes


def test_what_every_seed_says_is_said_once(records):
    for algorithm, task in (("mbpo", "hopper-medium"), ("mopo", "hopper-medium"), ("mbpo", "walker2d-medium")):
        records.add([[80, 25]] * 2, algorithm=algorithm, task=task, warnings=[{"fit": "cut off"}] * 2)
    records.add([[80, 25]] * 2, task="walker2d-medium", warnings=[{"fit": "cut off"}, {}])
    assert [note for note in scores_table(records.runs()).notes if "cut off" in note] == [
        "Every seed of mbpo and mopo on hopper-medium: cut off.",
        "Every seed of mbpo on walker2d-medium: cut off.",
        "walker2d-medium mopo, 1 of 2 seeds (seed 0): cut off.",
    ]


@pytest.mark.parametrize("format, mark", [("markdown", "‡"), ("html", "‡"), ("latex", r"$^\ddagger$")])
def test_marked_in_every_format(format, mark, marked):
    text = render("scores", marked.runs(), "runs", format)
    assert text.count(mark) == 2  # the entry and its note
    assert ",overvalued" in render("scores", marked.runs(), "runs", "csv").splitlines()[0]
    assert json.loads(render("table1", marked.runs(), "runs", "json"))


def test_in_words(marked):
    runs = [run for run in marked.runs() if run.algorithm == "mopo"]
    assert overvalued(runs[0].evaluations) is None and overvalued(runs[1].evaluations) == runs[1].evaluations[1]
    first = "at step 1,000,000 the critics' mean value is 678, above 350, the most that its rewards allow"
    assert [warnings(run.record) for run in runs] == [[], [SAID, first], [first]]


def test_status_names_what_failed_and_the_seeds_of_a_warning(records, command):
    records.add([1.0, 2.0, 3.0], warnings=[{"fit": "it was cut off"}] * 2 + [{}], states=["done", "done", "failed"])
    shown = command("status", "--results", records.root).out
    assert "failed: hopper-medium/mopo/seed-2: " in shown
    assert "warning: hopper-medium/mopo, seeds 0, 1: it was cut off" in shown
