"""`mopo-bench plot`: what is drawn are the numbers of the tables, and every picture says what they are made of."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
from mopo_bench.algorithms.learning.registry import all_algorithms
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report import pictures
from mopo_bench.harness.report.choices import PICTURES
from mopo_bench.harness.report.comparisons import comparisons
from mopo_bench.harness.report.groups import grouped, labelled
from mopo_bench.harness.report.paper import paper_table, swapped_cells
from mopo_bench.harness.report.plots import styled
from mopo_bench.harness.report.statistics import mean_interval
from mopo_bench.harness.report.styles import styles
from mopo_bench.harness.report.tables import scores_table
from mopo_bench.tasks.registry import all_tasks

HISTORIES = [[500.0, 900.0], [700.0, 1000.0], [600.0, 1400.0]]


@pytest.fixture(autouse=True)
def as_drawn():
    with styled():
        yield


@pytest.fixture
def drawn(records):
    """The axes of a picture of all that is in `records`, and its sentences."""

    def make(name, metric="last"):
        figure, said = pictures.DRAWN[name](labelled(grouped(records.runs())), metric)
        return figure.axes, said

    return make


def score(value):
    return all_tasks()["hopper-medium"].references.score(value)


def line_of(axis, steps):
    found = [line for line in axis.lines if list(line.get_xdata()) == steps and line.get_linewidth() > 1.5]
    assert len(found) == 1
    return np.asarray(found[0].get_ydata())


def levels(axis):
    """Heights of the horizontal lines that cross the panel, without the best episode's."""
    return sorted(line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1] and line.get_color() != "0.35")


def test_a_long_curve_is_thin_behind_its_running_mean(records, drawn):
    returns = [float(1000 + 500 * (-1) ** place) for place in range(200)]
    records.add([returns], steps=200_000)
    (axis,), said = drawn("curves")
    steps = list(range(1000, 201_000, 1000))
    thick = line_of(axis, steps)
    (thin,) = [line for line in axis.lines if list(line.get_xdata()) == steps and line.get_linewidth() < 1]
    assert list(thin.get_ydata()) == pytest.approx([score(value) for value in returns])
    assert thick[100] == pytest.approx(np.mean([score(value) for value in returns[98:103]]))  # 5 of 200
    assert "running mean over a 40th" in said[1]


@pytest.mark.parametrize(("count", "dense"), [(150, False), (151, True)])
def test_from_when_on_a_curve_is_smoothed(records, drawn, count, dense):
    records.add([np.arange(count, dtype=float)] * 2, steps=count * 1000)
    records.add([[1.0] * (count + 60)], steps=(count + 60) * 1000, seeds=[2])  # its end is not in the mean
    (axis,), said = drawn("curves")
    assert any("running mean" in each for each in said) == dense
    lines = [line for line in axis.lines if len(line.get_xdata()) == count]
    assert len(lines) == 1 + dense


def test_a_running_mean_lies_around_its_middle():
    assert list(pictures.running_mean(np.arange(6.0), 3)) == [0.5, 1, 2, 3, 4, 4.5]


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (3, (1, 3)), (4, (2, 2)), (5, (2, 3)), (12, (4, 3))])
def test_panels_are_at_most_three_in_a_row(count, shape):
    _, axes = pictures._grid(count, (4.0, 3.0))
    grid = axes[0].get_subplotspec().get_gridspec()
    assert len(axes) == count and (grid.nrows, grid.ncols) == shape


def test_a_curve_is_the_mean_over_seeds_with_its_interval(records, drawn):
    records.add(HISTORIES, steps=2000)
    (axis,), said = drawn("curves")
    by_step = np.transpose([[score(value) for value in history] for history in HISTORIES])
    assert line_of(axis, [1000, 2000]) == pytest.approx(by_step.mean(1))
    low, high = mean_interval(by_step[1].tolist())
    shaded = axis.collections[0].get_paths()[0].vertices
    assert (shaded[:, 1].max(), shaded[shaded[:, 0] == 2000, 1].min()) == pytest.approx((high, low))
    assert axis.get_ylabel() == "normalised score" and axis.get_title() == "hopper-medium, v0"
    assert "95 % interval" in said[0]


def test_the_axis_spans_the_seeds_and_the_lines_not_the_intervals(records, drawn):
    """Three seeds far apart have an interval that goes far beyond them all."""
    records.add([[0.0, 0.0], [0.0, 1000.0], [0.0, 2000.0]], source="regenerated")
    (axis,), said = drawn("curves")
    lines = [line.get_ydata()[0] for line in axis.lines if list(line.get_xdata()) == [0, 1]]
    seen = [score(0.0), score(2000.0), *lines]
    margin = 0.05 * (max(seen) - min(seen))
    assert axis.get_ylim() == pytest.approx((min(seen) - margin, max(seen) + margin))
    assert "cut where it goes beyond" in said[0]


def test_the_paper_s_number_is_a_line_and_is_called_so(records, drawn):
    records.add(HISTORIES)
    (axis,), said = drawn("curves")
    printed = paper_table("table1")["hopper-medium", "MOPO"].mean
    assert levels(axis) == [printed]
    legend = [text.get_text() for text in axis.figure.legends[0].get_texts()]
    assert legend == ["MOPO", "the dataset's best episode", "the paper's number (by colour and marker)"]
    assert said[1].startswith("The paper's numbers: on its own data")


def test_no_paper_s_number_under_the_wrong_environment_or_for_other_tasks(records, drawn):
    task, heading = next(iter(swapped_cells()))
    records.add(HISTORIES, task=task, algorithm=heading.lower())
    records.add(HISTORIES, task="point-angle")
    records.add(HISTORIES, task="ant-angle", parameters={"angle": 45.0})
    axes, said = drawn("curves")
    assert len(axes) == 3 and [levels(axis) for axis in axes] == [[], [], []]
    assert len(said) == 1


def test_a_curve_ends_with_its_shortest_seed(records, drawn):
    records.add([[1.0, 2.0, 3.0]], task="point-angle", steps=3000)
    records.add([[3.0, 4.0]], task="point-angle", seeds=[1], steps=2000, states=["running"])
    (axis,), _ = drawn("curves")
    assert line_of(axis, [1000, 2000]) == pytest.approx([2.0, 3.0])
    thin = [list(line.get_ydata()) for line in axis.lines if line.get_linewidth() < 1]
    assert thin == [[1.0, 2.0], [3.0, 4.0]]  # of two seeds both
    assert not axis.collections  # and no interval


WHOLE = {"rows": 2_000_000, "digest": "whole", "return_mean": 1.0, "return_max": 2000.0}


@pytest.mark.parametrize("windows", [("last_1m", "last_1m"), ("last_1m", "first_1m"), ("all", "all")])
@pytest.mark.parametrize("name", ["curves", "bars"])
def test_the_best_episode_is_that_of_the_table(records, drawn, command, name, windows):
    """And of the comparisons: the window's where all columns learned from the same one, else the whole dataset's."""
    for algorithm, window in zip(("mopo", "sac"), windows, strict=True):
        probes = {"whole": WHOLE} if window != "all" else {"digest": "whole", "return_max": 2000.0}
        records.add([[900.0, 1000.0]] * 3, algorithm=algorithm, window=window, digest=window, probes=probes)
    (axis,), _ = drawn(name)
    (line,) = [
        (line.get_xdata() if name == "bars" else line.get_ydata())[0] for line in axis.lines if line.get_color() == "0.35"
    ]
    (entry,) = [each for row in scores_table(records.runs()).rows for each in row if each.algorithm == "batch max"]
    best = 3000.0 if windows == ("last_1m", "last_1m") else 2000.0
    assert (line, entry.mean) == pytest.approx((score(best), score(best)))
    (against,) = [row for row in comparisons(records.runs()).rows if "batch max" in row[3].text]
    assert against[5].mean == pytest.approx(score(1000.0) - score(best))


def test_bars_are_means_with_seeds_and_whiskers(records, drawn):
    records.add(HISTORIES)
    records.add([1000.0], algorithm="sac")
    (axis,), _ = drawn("bars")
    last = [score(history[-1]) for history in HISTORIES]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([np.mean(last), score(1000.0)])
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["MOPO", "SAC"] and axis.yaxis_inverted()
    dots = [list(line.get_xdata()) for line in axis.lines if line.get_marker() == "o"]
    assert dots[0] == pytest.approx(last)
    (whiskers,) = [each for each in axis.containers if hasattr(each, "has_xerr")]
    ends = whiskers.lines[2][0].get_segments()[0][:, 0]
    assert ends == pytest.approx(mean_interval(last))


def test_a_profile_is_the_share_of_runs_above(records, drawn):
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    records.add(values, task="point-angle")
    (axis,), _ = drawn("profile")
    line = axis.lines[0]
    assert line.get_drawstyle() == "steps-post"
    shares = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert [shares[value] for value in values] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])
    assert min(shares) < 1.0 and max(shares.values()) == 1.0
    assert len(axis.collections) == 1  # five seeds have an interval


def test_a_heat_map_has_every_mean_as_a_number(records, drawn):
    records.add([100.0, 300.0], task="point-angle")
    records.add([50.0], task="point-angle", algorithm="sac")
    records.add([[7.0], [8.0]], task="point-edge", states=["done", "diverged"])
    axes, _ = drawn("heatmap")
    texts = [text.get_text() for text in axes[0].texts]
    assert texts == ["200.0", "50.0", "7.0\n1 of 2 diverged", "–"]
    assert [label.get_text() for label in axes[0].get_yticklabels()] == ["point-angle, v0 (return)", "point-edge, v0 (return)"]


def test_a_sweep_is_a_grid_of_means(records, drawn):
    """Horizons down and coefficients across, numbers in their order; what was not run is a dash."""
    for number, (horizon, coefficient, returns) in enumerate([(10, 0.5, [100.0, 300.0]), (5, 2.0, [7.0]), (5, 0.5, [9.0])]):
        records.add(
            returns,
            task="point-angle",
            identity=f"a{number}",
            overrides={"rollout_length": horizon, "penalty_coefficient": coefficient},
        )
    records.add([1.0], task="point-angle", algorithm="sac")
    (axis, _), _ = drawn("sweep")
    assert [text.get_text() for text in axis.texts] == ["9.0", "7.0", "200.0\n± 141.4", "–"]
    assert (axis.get_ylabel(), axis.get_xlabel()) == ("rollout_length", "penalty_coefficient")
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.5", "2.0"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["5", "10"]


def test_a_sweep_of_nothing_or_of_too_much_is_said(records, drawn):
    records.add([1.0])
    with pytest.raises(UserError, match="several values of one or two settings"):
        drawn("sweep")
    for number in range(2):
        records.add([1.0], identity=f"b{number}", overrides={"a": number, "b": number, "c": number})
    with pytest.raises(UserError, match=r"Not shown: .*3 settings differ \(a, b, c\)"):
        drawn("sweep")
    records.add([4.0], algorithm="sac", identity="c", overrides={"tau": 0.1})
    records.add([5.0], algorithm="sac", identity="d", overrides={"tau": 0.2})
    axes, said = drawn("sweep")
    assert axes[0].get_title().startswith("SAC, hopper-medium") and "3 settings differ" in said[-1]


def test_an_algorithm_looks_alike_in_every_picture(records):
    records.add([1.0], algorithm="bc")
    records.add([1.0], algorithm="stranger")
    few = styles(labelled(grouped(records.runs())))
    records.add([1.0])
    records.add([1.0], identity="b", overrides={"depth": 3})
    many = styles(labelled(grouped(records.runs())))
    assert few["bc"] == many["bc"] and few["bc"] != few["stranger"]
    for what in ("marker", "dash", "color"):  # each alone tells them apart
        assert len({str(getattr(look, what)) for look in many.values()}) == len(many)


def test_every_algorithm_of_the_package_has_a_look_of_its_own_whatever_stands_beside_it(records):
    built_in = [name for name, each in all_algorithms().items() if each.origin.startswith("mopo_bench.")]
    assert {"rambo", "iql", "bear-2020"} <= set(built_in)
    alone = {}
    for name in built_in:
        records.add([1.0], algorithm=name)
        alone[name] = styles(labelled(grouped(run for run in records.runs() if run.algorithm == name)))[name]
    records.add([1.0], algorithm="a-stranger")
    together = styles(labelled(grouped(records.runs())))
    stranger = together.pop("a-stranger")
    assert together == alone and stranger not in together.values()
    for what in ("color", "marker", "dash", "hatch"):
        assert len({str(getattr(look, what)) for look in alone.values()}) == len(alone), what


def words_of(picture):
    """The text that an SVG shows, whatever its lines."""
    shown = re.sub(r"<metadata>.*</metadata>", "", picture.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", shown).split())


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_is_written_with_its_caption(records, command, tmp_path, name):
    records.add(HISTORIES, overrides={"depth": 3, "width": 7})
    records.add(HISTORIES, identity="b", overrides={"depth": 4, "width": 7})
    records.add([5.0], algorithm="sac", states=["failed"])
    out = tmp_path / "made" / "picture.svg"
    with plt.rc_context({"svg.fonttype": "none"}):  # text stays text
        done = command("plot", name, "--results", records.root, "--out", out)
    assert (done.code, done.err) == (0, "")
    text = words_of(out)
    for said in ("Data hopper-medium@v0", "1,000 rows", "Steps: 1000000", "Seeds in a cell: 3", "mopo-bench 0.1.0"):
        assert said in text, said
    assert re.search(r"\b3\b.*\b4\b.*\bdepth\b" if name == "sweep" else "depth=3", text)  # on an axis, or in a name
    assert text.count("Not at the default: width=7 for mopo on hopper-medium") == 1 and "default: depth" not in text
    assert "Failed, not in the means: hopper-medium sac seed 0" in text


def test_what_is_not_believed_is_said(records, command, tmp_path):
    records.add(HISTORIES)
    (damaged,) = records.root.glob("*/*/*/seed-1/record.json")
    damaged.write_text("{}")
    with plt.rc_context({"svg.fonttype": "none"}):
        command("plot", "bars", "--results", records.root, "--out", tmp_path / "bars.svg")
    assert "Not believed, and not shown: hopper-medium/mopo/a/seed-1" in words_of(tmp_path / "bars.svg")


@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_formats(records, command, tmp_path, suffix):
    records.add(HISTORIES)
    command("plot", "curves", "--results", records.root, "--out", tmp_path / f"p.{suffix}", "--algorithms", "mopo")
    assert (tmp_path / f"p.{suffix}").read_bytes()[:4] in (b"\x89PNG", b"%PDF")


def test_what_cannot_be_drawn_is_said_in_a_line(records, command, tmp_path):
    records.root.mkdir()
    wrong = [
        (("curves", "--out", "a.gif"), "expected a name that ends in .png, .svg or .pdf"),
        (("curves", "--out", "a.png", "--metric", "best"), "learning curves show every evaluation"),
        (("bars", "--out", "a.png", "--tasks", "hopper-medium,x"), "--tasks x: no run of it here, but of hopper-medium"),
    ]
    empty = command("plot", "curves", "--out", tmp_path / "a.png", "--results", records.root)
    assert empty.code == 2 and "no runs in" in empty.err
    records.add([1.0], states=["failed"])
    failed = command("plot", "bars", "--out", tmp_path / "a.png", "--results", records.root)
    assert failed.code == 2 and "gives a number yet" in failed.err
    for words, said in wrong:
        done = command("plot", *words, "--results", records.root)
        assert done.code == 2 and said in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("name", ["curves", "bars", "profile"])
def test_long_labels_and_captions_stay_inside_the_picture(records, name):
    """One narrow panel, two columns with settings in their names."""
    for epochs in (20, 100):
        records.add(
            HISTORIES, identity=f"a{epochs}", overrides={"dynamics.max_epochs": epochs, "rollout_states": 10_000 + epochs}
        )
    groups = labelled(grouped(records.runs()))
    figure, said = pictures.DRAWN[name](groups, "last")
    pictures._caption(figure, [*said, " ".join(pictures.provenance(groups))])
    figure.draw_without_rendering()
    for artist in [*figure.legends, *(text for text in [figure._supxlabel] if text)]:
        box = artist.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width, name


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("name", ["curves", "bars", "profile", "heatmap"])
def test_many_long_names_do_not_run_into_one_another(records, name, tasks):
    """Nor do they take the place of what is drawn."""
    for task in ("hopper-medium", "walker2d-mixed", "point-angle")[:tasks]:
        records.add(HISTORIES, task=task)
        for number in range(11):
            overrides = {"dynamics.max_epochs": 20 + number, "penalty": ("max_covariance", "ensemble")[number % 2]}
            records.add(HISTORIES, task=task, identity=f"a{number}", overrides=overrides)
    groups = labelled(grouped(records.runs()))
    figure, said = pictures.DRAWN[name](groups, "last")
    pictures._caption(figure, [*said, " ".join(pictures.provenance(groups))])
    figure.draw_without_rendering()
    panels = figure.axes[:1] if name == "heatmap" else [axis for axis in figure.axes if axis.get_title()]
    for axis in panels:
        ticks = [
            tick
            for each in (axis.xaxis, axis.yaxis)
            for tick in each.get_major_ticks()
            if min(each.get_view_interval()) <= tick.get_loc() <= max(each.get_view_interval())
        ]
        boxes = [tick.label1.get_window_extent() for tick in ticks if tick.label1.get_text()]
        assert not [1 for place, box in enumerate(boxes) for other in boxes[:place] if box.overlaps(other)]
        assert all(box.x0 >= 0 and box.x1 <= figure.bbox.width and box.y0 >= 0 for box in boxes)
        assert min(axis.bbox.width, axis.bbox.height) / figure.dpi > (0.5 if name == "heatmap" else 2)
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert not any(box.overlaps(axis.bbox) for axis in panels) and box.x0 >= 0 and box.x1 <= figure.bbox.width
