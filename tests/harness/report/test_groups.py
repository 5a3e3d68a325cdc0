import re
from itertools import count

from mopo_bench.harness.report.groups import dataset_names, grouped, in_columns, labelled, numbered
from mopo_bench.harness.report.notes import footnotes
from mopo_bench.harness.runs.records import Run


def a_run(
    algorithm="mopo",
    identity="a",
    seed=0,
    task="hopper-medium",
    state="done",
    versions=None,
    source="v0",
    begun="",
    **overrides,
):
    data = {"label": f"{task}@{source}", "source": source, "rows": 100, "window": "all", "digest": "d" + source}
    cell = {"overrides": overrides, "data": data, "versions": versions or {"learner": 1}, "package": "0.1.0"}
    evaluations = [{"step": 10, "returns": [1.0], "return_mean": 1.0}]
    record = {"segments": [{"date": begun}]} if begun else {}
    return Run(task, algorithm, identity, seed, state, 10, evaluations, cell, record)


def labels(*runs):
    return {(group.data["label"], group.identity): group.label for group in labelled(grouped(runs))}


def test_seeds_of_one_identity_are_grouped_and_nothing_else():
    fresh = count()
    runs = [a_run(seed=next(fresh)), a_run(seed=next(fresh))]
    others = [
        a_run(seed=next(fresh), identity="b", penalty_coefficient=5),
        a_run(seed=next(fresh), algorithm="mbpo"),
        a_run(seed=next(fresh), task="walker2d-medium"),
        a_run(seed=next(fresh), source="v2"),
    ]
    others.append(a_run(seed=next(fresh)))
    others[-1].cell["data"]["digest"] = "another"
    groups = [sorted(run.seed for run in group.runs) for group in grouped([*runs, *others])]
    assert sorted(groups) == [[0, 1], *([number] for number in range(2, next(fresh)))]


def test_the_same_arrays_are_one_row_whatever_they_were_read_from():
    """A file that `data export` wrote of a dataset made here."""
    here, file = a_run(source="regenerated"), a_run(algorithm="bc", source="file")
    file.cell["data"] |= {"digest": here.cell["data"]["digest"], "from": "export.hdf5"}
    groups = labelled(grouped([file, here]))
    assert len({group.key for group in groups}) == 1
    assert dataset_names(groups) == {groups[0].key: "hopper-medium@regenerated"}
    (said,) = [each for each in footnotes(groups, "last") if each.startswith("Data")]
    assert said == (
        "Data hopper-medium@regenerated: 100 rows, window all, read as file export.hdf5 for bc; 100 rows, window all for mopo."
    )


def test_groups_stand_in_the_order_of_tasks_and_of_data():
    runs = [
        a_run(task=task, source=source) for task in ("ant-angle", "hopper-medium") for source in ("file", "regenerated", "v0")
    ]
    order = [(group.task, group.cell["data"]["source"]) for group in grouped(runs)]
    assert order == [(task, source) for task in ("hopper-medium", "ant-angle") for source in ("v0", "regenerated", "file")]


def test_only_overrides_that_tell_apart_are_named():
    data = "hopper-medium@v0"
    assert labels(a_run(epochs=15)) == {(data, "a"): "mopo"}
    assert labels(a_run(), a_run(identity="b", penalty_coefficient=5)) == {
        (data, "a"): "mopo",
        (data, "b"): "mopo [penalty_coefficient=5]",
    }
    assert labels(a_run(x=1, y=1), a_run(identity="b", x=2, y=1)) == {(data, "a"): "mopo [x=1]", (data, "b"): "mopo [x=2]"}


def test_of_code_without_a_number_the_one_begun_last_has_the_plain_name():
    """By its digest, which is chance, an edited class had the name that the one before it should have had."""
    dates = {"a": "2026-11-29T21:40:00+00:00", "b": "2026-11-29T21:20:00+00:00", "c": "2026-11-29T21:30:00+00:00"}
    runs = [a_run(identity=name, versions={"learner": f"{name * 8}.2"}, begun=dates[name]) for name in dates]
    groups = labelled(grouped(runs))
    assert [group.label for group in groups] == [
        "mopo",
        f"mopo [learner version {'b' * 8}.2]",
        f"mopo [learner version {'c' * 8}.2]",
    ]
    (note,) = [each for each in footnotes(groups, "last") if "tells these columns apart" in each]
    assert re.findall(r"\d\d:\d\d:00", note) == ["21:20:00", "21:30:00", "21:40:00"] and note.endswith(
        "mopo 2026-11-29 21:40:00."
    )
    failed = a_run(identity="d", versions={"learner": "dddddddd.2"}, begun="2026-11-30T00:00:00", state="failed")
    assert labels(*runs, failed)[groups[0].data["label"], "a"] == "mopo"  # an edit that gave nothing takes nobody's name
    assert [numbered(each) for each in ("6994a8df.2.1", "1.2", 20260301, "v3", "1.0rc1", 3)] == [
        [0, 2, 1], [1, 2], [20260301], [3], [1, 0], [3],
    ]  # fmt: skip


def test_when_old_records_were_begun_is_not_known():
    groups = labelled(grouped([a_run(identity="a"), a_run(identity="b")]))
    (note,) = [each for each in footnotes(groups, "last") if "tells these columns apart" in each]
    assert note.endswith("mopo [a] at an unknown time and mopo at an unknown time.") or "mopo [b] at an unknown time" in note


def test_the_newest_version_keeps_the_plain_name():
    old, new = a_run(versions={"learner": 1, "dynamics": 3}), a_run(identity="b", versions={"learner": 2, "dynamics": 3})
    assert list(labels(old, new).values()) == ["mopo [learner version 1]", "mopo"]
    named = labels(a_run(identity="c"), a_run(identity="d"), a_run(identity="d", seed=1))
    assert list(named.values()) == ["mopo [c]", "mopo"]


def test_columns_of_numbers_stand_by_value():
    runs = [a_run(identity=str(length), rollout_length=length) for length in (10, 1, 5)]
    names = [group.label for group in in_columns(labelled(grouped(runs)))]
    assert names == ["mopo [rollout_length=1]", "mopo [rollout_length=5]", "mopo [rollout_length=10]"]
