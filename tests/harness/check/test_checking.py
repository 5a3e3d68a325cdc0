import json
import math

import mopo_bench
import numpy as np
import pytest
from mopo_bench import check
from mopo_bench.common.errors import UserError
from mopo_bench.harness.check.baseline import from_folder, update
from mopo_bench.harness.check.checking import Options
from mopo_bench.harness.check.prediction import Prediction


def only(report):
    (cell,) = report.cells
    return cell


def test_a_worse_sample_is_a_regression_and_an_equal_one_passes(new, normal, baseline):
    folder = new.add(normal(100, 5, 5, seed=11), first=100)
    assert check(new.root, baseline).verdict == "pass"
    for path in folder.glob("seed-*"):
        (path / "record.json").unlink()
    new.add(normal(80, 5, 5, seed=11), first=100)
    report = check(new.root, baseline)
    assert (report.verdict, report.exit_status) == ("regression", 1)
    (found,) = only(report).findings
    assert found.new_mean < found.low < found.mean and found.adjusted < 0.05


def test_power_is_computed_where_it_is_shown_and_once(new, normal, baseline, monkeypatch):
    """Who only counts verdicts, as the count of false alarms does, does not wait for it."""
    computed, power = [], Prediction.power
    monkeypatch.setattr(Prediction, "power", lambda self, *asked: computed.append(asked) or power(self, *asked))
    new.add(normal(100, 5, 5, seed=11), first=100)
    report = check(new.root, baseline)
    (found,) = only(report).findings
    assert report.verdict == "pass" and not computed
    shown = json.loads(json.dumps(report.as_dict()))["cells"][0]["findings"][0]
    assert found.power == shown["power"] and 0 < found.power <= 1 and len(computed) == 1
    assert "drop" not in shown


def test_p_values_are_computed_once(new, normal, baseline, monkeypatch):
    computed, p_value = [], Prediction.p_value
    monkeypatch.setattr(Prediction, "p_value", lambda self, *asked: computed.append(asked) or p_value(self, *asked))
    new.add(normal(100, 5, 5, seed=11), first=100)
    (found,) = only(check(new.root, baseline)).findings
    assert len(computed) == 1 and 0 < found.p_value <= 1


def test_runs_that_went_on_are_compared_at_the_baselines_step(new, normal, baseline):
    """Of their other evaluations but the last no more is kept in memory than the step and the return."""
    values = normal(100, 5, 5, seed=11)
    new.add(values, first=100, steps=32_000)
    for seed, value in enumerate(values, 100):
        rows = [{"step": step, "returns": [each] * 20, "return_mean": each}
                for step, each in ((4000, 0.0), (8000, value), (16_000, 0.0), (32_000, 0.0))]  # fmt: skip
        new.change(seed, evaluations=rows)
    (found,) = only(check(new.root, baseline)).findings
    assert found.verdict == "pass" and found.new_mean == pytest.approx(np.mean(values))


def test_a_better_sample_passes(new, normal, baseline):
    new.add(normal(140, 5, 5), first=100)
    assert check(new.root, baseline).verdict == "pass"


def test_a_loss_within_the_margin_passes(new, baseline):
    new.add([85.0] * 5, first=100)
    assert check(new.root, baseline).verdict == "regression"
    assert check(new.root, baseline, margin=0.16, effect=0.3).verdict == "pass"


def test_one_collapsed_seed_of_five_is_named(new, baseline):
    """Whether it is chance nobody can know yet: its mean lies below the limit, the ranks of the others are as good as any."""
    new.add([102.0, 99.0, 103.0, 101.0, 10.0], first=100)
    report = check(new.root, baseline)
    (found, *_) = report.cells[0].findings
    assert report.verdict == "pass" and found.new_mean < found.low
    assert any("Far below every seed" in note and "seed 104 (10, the baseline's lowest" in note for note in report.notes)


def test_five_collapsed_seeds_are_a_regression_however_much_they_scatter(new, baseline):
    new.add([80.0, -900.0, 60.0, 5.0, 10.0], first=100)
    assert check(new.root, baseline).verdict == "regression"


def test_too_few_seeds_to_show_anything_are_undecided(folder, normal):
    """Of two beside three the worst ranks have a probability of 1 in 10: at the usual error rate no run could fail."""
    old, new = folder("old"), folder("new")
    old.add(normal(100, 5, 3))
    new.add([1.0, 2.0], first=100)
    report = check(new.root, old.root, seeds=2)
    assert report.verdict == "undecided" and "2 new seeds beside 3 can show no regression" in report.cells[0].reasons[0]
    assert check(new.root, old.root, seeds=2, error_rate=0.2).verdict == "regression"


def break_record(new):
    (new.root / "point-angle/mopo/abc/seed-102/record.json").write_text('{"seed": 102, "sta')


def lose_record(new):
    (new.root / "point-angle/mopo/abc/seed-102/record.json").unlink()


def lose_all_but_the_folder(new):
    lose_record(new)
    (new.root / "point-angle/mopo/abc/seed-102/evaluations.csv").unlink()


def break_cell(new):
    (new.root / "point-angle/mopo/abc/cell.json").write_text("[]")


def move(new):
    (new.root / "point-angle/mopo/abc/seed-102").rename(new.root / "point-angle/mopo/abc/seed-7")


def copy_cell(new):
    cell = json.loads((new.root / "point-angle/mopo/abc/cell.json").read_text())
    (new.root / "point-angle/mopo/abc/cell.json").write_text(json.dumps({**cell, "algorithm": "sac"}))


ROW = {"step": 8000, "returns": [100.0] * 20, "return_mean": 100.0}
HALF = {"steps": 4000, "evaluations": [{**ROW, "step": 4000}]}


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda new: new.change(102, **HALF, state="failed", traceback="...\nKeyError: 'x'"), "seed 102: failed, KeyError"),
        (lambda new: new.change(102, state="diverged", diverged_at=5000), "seed 102: diverged, diverged at step 5,000"),
        (lambda new: new.change(102, **HALF, state="running"), "seed 102: unfinished, stopped at step 4,000"),
        (lambda new: new.change(102, **HALF), "seed 102: done at step 4,000, not at 8,000"),
        (lambda new: new.change(102, steps=4000), "seed 102: record.json says done at step 4,000, but"),
        (lambda new: new.change(102, evaluations=[{**ROW, "return_mean": float("nan")}]), "return_mean cannot be nan"),
        (lambda new: new.change(102, evaluations=[{**ROW, "return_mean": float("inf")}]), "return_mean cannot be inf"),
        (lambda new: new.change(102, evaluations=[{**ROW, "return_mean": None}]), "return_mean cannot be None"),
        (lambda new: new.change(102, evaluations=[{**ROW, "step": 8001}], steps=8001), "no evaluation at step 8,000"),
        (lambda new: new.change(102, evaluations=[{**ROW, "step": 7999}]), "its last evaluation is at step 7,999"),
        (lambda new: new.change(102, evaluations=[{**ROW, "returns": [100.0]}]), "evaluated on 1 episodes, not 20"),
        (lambda new: new.change(102, evaluations=[]), "seed 102: record.json says done at step 8,000, but there"),
        (lambda new: new.change(102, evaluations=None), "record.json: evaluations cannot be None"),
        (lambda new: new.change(102, evaluations=[{**ROW, "step": "x"}]), "step cannot be 'x'"),
        (lambda new: new.change(102, state=None), "seed 102: record.json: state cannot be None"),
        (lambda new: new.change(102, state="failed", traceback="...\nKeyError: 'x'"), "seed 102: failed, KeyError"),
        (lambda new: new.change(102, state="finished"), "record.json: state cannot be 'finished'"),
        (break_record, "seed 102: record.json cannot be read"),
        (lose_record, "seed 102: there are evaluations, and no record.json"),
        (lose_all_but_the_folder, "seed 102: begun, no record"),
        (break_cell, "abc/cell.json holds no object"),
        (copy_cell, "abc/cell.json is that of another algorithm, sac"),
        (move, "seed 7: record.json is that of seed 102"),
    ],
)
def test_what_gives_no_number_is_undecided(new, normal, baseline, harm, said):
    new.add(normal(100, 5, 5, seed=11), first=100)
    assert check(new.root, baseline).verdict == "pass"
    harm(new)
    report = check(new.root, baseline)
    assert (report.verdict, report.exit_status) == ("undecided", 3)
    assert said in "; ".join(only(report).reasons)


def trained(loss):
    return {"evaluations": [{**ROW, "metrics": {"loss": loss, "rate": 3e-4}}]}


def test_seeds_that_are_one_training_are_undecided(new, normal, baseline, tmp_path):
    """Copies, or an algorithm that ignores its seed, whose evaluations differ in their starts alone."""
    new.add(normal(100, 5, 5, seed=11), first=100)
    for seed in range(100, 105):
        new.change(seed, **trained(0.1234567891 + seed))
    assert check(new.root, baseline).verdict == "pass"
    new.change(103, **trained(0.1234567891 + 101))
    report = check(new.root, baseline)
    assert report.verdict == "undecided"
    assert report.cells[0].reasons == ("seeds 101, 103 have the same metrics to the last digit, as one training would",)
    with pytest.raises(UserError, match="makes no baseline: seeds 101, 103 have the same metrics"):
        update(tmp_path / "b.csv", new.root, "why", fewest=5)
    for seed in range(100, 105):
        new.change(seed, **trained(0.5))  # a setting that is told as a metric
    assert check(new.root, baseline).verdict == "pass"


def test_copies_without_metrics_are_undecided(new, normal, baseline):
    """As records were before there were metrics."""
    new.add(normal(100, 5, 5, seed=11), first=100)
    assert check(new.root, baseline).verdict == "pass"
    (copied,) = new.root.glob("*/*/*/seed-102/record.json")
    *before, row = json.loads(copied.read_text())["evaluations"]
    row["returns"] = [row["return_mean"] - 1, row["return_mean"] + 1] * (len(row["returns"]) // 2)
    for seed in (102, 104):
        new.change(seed, evaluations=[*before, row])
    report = check(new.root, baseline)
    assert report.cells[0].reasons == ("seeds 102, 104 have the same returns to the last digit, as copies have",)


def test_too_few_seeds_are_undecided(new, normal, baseline):
    new.add(normal(100, 5, 4), first=100)
    assert only(check(new.root, baseline)).reasons == ("4 of 5 new seeds are there",)
    assert check(new.root, baseline, seeds=4).verdict == "pass"


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"overrides": {"penalty_coefficient": 0.0}}, "settings penalty_coefficient=0.0"),
        ({"digest": "e" * 64}, "another dataset under that name (here its digest is eeeeeeee)"),
        ({"rules": {"task": "point-angle", "parameters": {"angle": 45}}}, "other rules of the task"),
        ({"algorithm": "mbpo"}, "missing: no runs in the folder"),
    ],
)
def test_a_cell_of_other_settings_is_missing(new, normal, baseline, other, said):
    new.add(normal(100, 5, 5), first=100, **other)
    report = check(new.root, baseline)
    assert report.exit_status == 3 and said in only(report).reasons[0]
    assert any("Not in the baseline, not checked" in note for note in report.notes)


def test_other_versions_of_the_code_are_compared_and_named(new, normal, baseline):
    new.add(normal(80, 5, 5), first=100, identity="later")
    report = check(new.root, baseline)
    assert report.verdict == "regression" and any("Other versions of the code" in note for note in report.notes)
    new.add(normal(100, 5, 5), first=100, identity="latest")
    reason = only(check(new.root, baseline)).reasons[0]
    assert "several versions of its code (later begun" in reason and "latest begun" in reason


def test_a_regression_weighs_more_than_what_is_missing(folder, new, normal):
    old = folder("old")
    for algorithm in ("mopo", "sac"):
        old.add(normal(100, 5, 20), algorithm)
    new.add([50.0] * 5, "sac", first=100)
    report = check(new.root, old.root)
    assert report.exit_status == 1
    assert [cell.verdict for cell in report.cells] == ["undecided", "regression"]


@pytest.mark.parametrize("direction", ["low", "high", "both"])
def test_vitals_are_gated_on_the_sides_that_are_worse(folder, new, normal, direction):
    old, worse = folder("old"), {"length": direction, "model.r2": "low", "seconds": "neither"}
    returns = normal(100, 5, 20)
    vitals, fits = {"length": normal(5, 0.1, 20, 1), "seconds": 1.0}, {"r2": normal(0.9, 0.01, 20, 2), "epochs": 9}
    old.add(returns, worse=worse, vitals=vitals, fits=fits)
    for name, length, caught in (("up", 7, {"high", "both"}), ("down", 3, {"low", "both"})):
        folder(name).add(returns[:5], first=100, worse=worse, vitals={"length": length, "seconds": 99}, fits={"r2": 0.9})
        cell = only(check(folder(name).root, old.root))
        assert (cell.verdict == "regression") == (direction in caught), name
        assert [each.quantity for each in cell.findings] == ["return", "length", "model.r2"]
        assert check(folder(name).root, old.root, vitals=False).verdict == "pass"


def test_every_metric_is_a_vital_on_both_sides_unless_said_otherwise(folder, new, normal):
    old = folder("old")
    old.add(normal(100, 5, 20), vitals={"loss": normal(1, 0.1, 20, 1)}, fits={"epochs": 9})
    new.add(normal(100, 5, 5), first=100, vitals={"loss": 0.2, "unheard": 3.0})
    (score, loss) = only(check(new.root, old.root)).findings
    assert (score.verdict, loss.verdict, loss.direction) == ("pass", "regression", "both")


def test_a_vital_of_many_scales_is_compared_by_its_logarithm(folder, new, normal):
    """Beside 1 to 10 000 around 100, some 3 and one 0 are seen, where 250 in the mean is nothing."""
    old, wide = folder("old"), np.exp(normal(math.log(100), 1.5, 20, 1)).tolist()
    old.add(normal(100, 5, 20), vitals={"multiplier": wide})
    for name, value, verdict in (("usual", 250.0, "pass"), ("low", 3.0, "regression"), ("nothing", 0.0, "regression")):
        folder(name).add(normal(100, 5, 5), first=100, vitals={"multiplier": value})
        found = only(check(folder(name).root, old.root)).findings[1]
        assert (found.verdict, found.logarithmic) == (verdict, True)
        assert found.mean == pytest.approx(np.exp(np.mean(np.log(wide)))) and found.new_mean == pytest.approx(value)


def test_metrics_under_keys_of_their_own_keep_their_names(new, normal, folder):
    """A metric that is called as the return is no return, and of a list the mean counts, without what there was not."""
    for place, first, count in ((folder("older"), 0, 20), (new, 100, 5)):
        place.add(normal(100, 5, count), first=first)
        for seed in range(first, first + count):
            row = {"step": 8000, "returns": [100.0 + seed % 3] * 20, "return_mean": 100.0 + seed % 3}
            row |= {
                "metrics": {"loss": 1.0, "return": -5.0, "note": "x"},
                "vitals": {"by_step": [1.0, None, 3.0], "none": [None]},
            }
            place.change(seed, evaluations=[{**row, "value": {"mean": 7.0}}])
    old = folder("older").root
    (cell,) = from_folder(old)
    assert cell.seeds[0] == {"return": 100.0, "loss": 1.0, "metrics.return": -5.0, "by_step": 2.0}
    assert [each.quantity for each in only(check(new.root, old)).findings] == ["return", "loss", "metrics.return", "by_step"]


def test_metrics_over_another_interval_do_not_compare(folder, new, normal):
    """They are means since the evaluation before: of twice as many steps they lie elsewhere though nothing has changed."""
    old = folder("old")
    old.add(normal(100, 5, 20), vitals={"loss": normal(1, 0.1, 20)})
    new.add(normal(100, 5, 5), first=100, vitals={"loss": 1.0})
    for seed in range(100, 105):
        new.change(seed, evaluations=[{**ROW, "loss": 1.0}])
    assert "means of 8,000 steps, not 4,000" in only(check(new.root, old.root)).reasons[0]
    assert check(new.root, old.root, vitals=False).verdict == "pass"


@pytest.mark.parametrize("lost", [{}, {"loss": float("nan")}])
def test_a_lost_vital_is_undecided(folder, new, normal, lost):
    old = folder("old")
    old.add(normal(100, 5, 20), vitals={"loss": 1.0})
    new.add(normal(100, 5, 5), first=100, vitals=lost)
    assert only(check(new.root, old.root)).reasons[0] == f"seed 100: {'loss is nan' if lost else 'no loss'}"


@pytest.mark.parametrize("where", ["fit", "metric"])
def test_a_number_too_long_for_a_float_is_undecided(where, folder, new, normal):
    """What a stage says of its fit is its own, and older metrics lie beside the step: neither is checked when it is read."""
    old, worse, vitals = folder("old"), {"model.error": "high"}, {"loss": 1.0}
    old.add(normal(0, 1, 20), worse=worse, fits={"error": normal(1, 0.1, 20)}, vitals=vitals)
    cell = new.add(normal(0, 1, 5), first=100, worse=worse, fits={"error": [1.0] * 5}, vitals=vitals)
    record = json.loads((cell / "seed-102" / "record.json").read_text())
    part, name = {"fit": (record["stage_records"]["model"], "error"), "metric": (record["evaluations"][-1], "loss")}[where]
    part[name] = 10**400
    (cell / "seed-102" / "record.json").write_text(json.dumps(record))
    assert [each.endswith(f"{name} is nan") for each in only(check(new.root, old.root)).reasons] == [True]


def test_holm_over_cells_is_what_a_direct_computation_gives(folder, new, normal):
    """Three cells: the returns' p-values by hand, their error rate halved for the vitals beside them."""
    old, lost, given = folder("old"), {"bc": 14.0, "mopo": 7.0, "sac": 1.0}, {}
    for algorithm, loss in lost.items():
        before = normal(100, 5, 20, seed=len(algorithm))
        old.add(before, algorithm, vitals={"v": normal(1, 0.1, 20)})
        given[algorithm] = np.add(before[:5], np.mean(before) - np.mean(before[:5]) - loss).tolist()
        new.add(given[algorithm], algorithm, vitals={"v": 1.0}, first=100)
    report = check(new.root, old.root, margin=0.0)
    names = [each.algorithm for each in report.cells]
    p = [Prediction(tuple(old_returns(old, name))).p_value(given[name]) for name in names]
    assert p == pytest.approx([each.findings[0].p_value for each in report.cells])
    first, second, third = sorted(p)
    adjusted = {first: 3 * first, second: max(3 * first, 2 * second), third: max(3 * first, 2 * second, third)}
    assert [each.findings[0].adjusted for each in report.cells] == pytest.approx([min(1.0, adjusted[each]) for each in p])
    assert [each.verdict == "regression" for each in report.cells] == [adjusted[each] <= 0.025 for each in p]
    assert [each.verdict for each in report.cells] == ["regression", "pass", "pass"]
    alone = check(new.root, old.root, margin=0.0, algorithms=["mopo"], vitals=False)
    assert alone.cells[0].verdict == "regression"  # one cell, the whole error rate


def old_returns(old, algorithm):
    return [run.evaluations[-1]["return_mean"] for run in old.runs() if run.algorithm == algorithm]


def test_missing_cells_count_among_the_comparisons(folder, new, normal):
    """Or fewer records would make a check stricter on those that are there."""
    old = folder("old")
    for algorithm in ("bc", "mopo", "sac"):
        old.add(normal(100, 5, 20), algorithm)
    new.add([96.0] * 5, "bc", first=100)
    (found,) = check(new.root, old.root, margin=0.0).cells[0].findings
    assert found.adjusted == pytest.approx(3 * found.p_value)


def test_looks_after_every_seed_stop_once_it_is_decided(folder, new, normal, baseline):
    options = {"seeds": 2, "sequential": 8}
    new.add([93.0, 92.0], first=100)
    cell = only(check(new.root, baseline, **options))
    assert (cell.verdict, cell.next_seed) == ("undecided", 102)
    new.add([93.0, 92.0, 93.0, 92.0, 93.0, 92.0, 93.0, 92.0], first=100)
    assert only(check(new.root, baseline, **options)).verdict in ("pass", "regression")  # after the last look in any case
    good, bad = folder("good"), folder("bad")
    good.add([104.0, 106.0], first=100)
    bad.add([60.0, 61.0], first=100)
    assert check(good.root, baseline, **options).verdict == "pass"
    assert check(bad.root, baseline, **options).verdict == "regression"


def test_only_the_cells_that_are_asked_for_must_be_there(folder, new, normal):
    old = folder("old")
    for algorithm in ("mopo", "sac"):
        old.add(normal(100, 5, 20), algorithm)
    new.add(normal(100, 5, 5), first=100)
    report = check(new.root, old.root, algorithms=["mopo"])
    assert report.exit_status == 0 and "1 of the baseline's 2 cells" in report.notes[0]
    with pytest.raises(UserError, match=r"unknown algorithm of the baseline 'mopp'.*'mopo'"):
        check(new.root, old.root, algorithms=["mopp"])


def test_a_baseline_of_two_seeds_or_with_a_failed_one_decides_nothing(folder, new, normal):
    new.add(normal(100, 5, 5), first=100)
    two, failed = folder("two"), folder("failed")
    two.add([100.0, 101.0])
    failed.add(normal(100, 5, 20))
    failed.change(3, **HALF, state="failed", traceback="ValueError: x")
    assert "the baseline has 2 seeds" in only(check(new.root, two.root)).reasons[0]
    assert "of the baseline, seed 3: failed, ValueError: x" in only(check(new.root, failed.root)).reasons[0]


def test_scores_are_compared_where_the_task_has_them(folder, new, normal):
    old = folder("old")
    old.add(normal(2000, 100, 20), task="hopper-medium")
    new.add(normal(2000, 100, 5), task="hopper-medium", first=100)
    (found,) = only(check(new.root, old.root)).findings
    assert found.quantity == "score" and 55 < found.mean < 65


def test_a_score_normalised_otherwise_is_seen(folder, new, normal, tmp_path, monkeypatch):
    """The baseline's scores are those that were computed when it was written."""
    from mopo_bench.harness.check import recorded
    from mopo_bench.harness.check.baseline import update

    old = folder("old")
    old.add(normal(2000, 100, 20), task="hopper-medium")
    update(tmp_path / "baseline.csv", old.root, "why")
    new.add(normal(2000, 100, 5), task="hopper-medium", first=100)
    assert check(new.root, tmp_path / "baseline.csv").verdict == "pass"
    wrong = recorded.score_of
    monkeypatch.setattr(recorded, "score_of", lambda task, value: wrong("walker2d-medium", value))
    assert check(new.root, tmp_path / "baseline.csv").verdict == "regression"
    monkeypatch.setattr(recorded, "score_of", lambda task, value: None)
    assert only(check(new.root, tmp_path / "baseline.csv")).reasons[0] == "seed 100: no score"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"margin": -0.1}, "--margin -0.1"),
        ({"margin": 0.2}, "less than --effect"),
        ({"error_rate": 5}, "--error-rate 5: expected a probability"),
        ({"seeds": 0}, "--seeds 0"),
        ({"sequential": 5}, "--sequential 5: expected more than --seeds"),
    ],
)
def test_wrong_options_are_refused(wrong, said):
    with pytest.raises(UserError, match=said):
        Options(**wrong)


def test_seeds_of_the_baseline_are_no_new_ones(folder, new, normal):
    old = folder("old")
    old.add(normal(100, 5, 20))
    report = check(old.root, old.root)
    assert report.verdict == "pass" and "Seeds that the baseline has" in report.notes[-1]


def test_real_runs_are_compared(plan, tmp_path):
    """Of an algorithm with a fit: its metrics and what its fit says of itself are vitals."""
    from mopo_bench.harness.runs.runner import execute

    for name, seeds in (("old", (0, 1, 2)), ("new", (3, 4))):
        execute(plan("mopo", results=tmp_path / name, seeds=seeds, steps=50), 1)
    report = mopo_bench.check(tmp_path / "new", tmp_path / "old", seeds=2)
    (cell,) = report.cells
    assert cell.reasons == ("2 new seeds beside 3 can show no regression at this error rate: run more",)
    named = {each.quantity: each.direction for each in cell.findings}
    assert named["dynamics.holdout_reward_r2"] == "low" and named["dynamics.elite_error_ratio"] == "high"
    assert named["critic_loss"] == named["rollout_length"] == "both"
