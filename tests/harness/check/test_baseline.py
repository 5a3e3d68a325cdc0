import re

import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.check.baseline import from_folder, load_baseline, update


def test_a_file_holds_what_the_folder_does(folder, normal, tmp_path):
    old, path = folder("old"), tmp_path / "baseline.csv"
    old.add(normal(100, 5, 20), vitals={"loss": normal(1, 0.1, 20)}, fits={"r2": 0.9}, worse={"model.r2": "low"})
    old.add(normal(-3, 1, 20), "sac", vitals={"entropy": normal(0, 2, 20)}, overrides={"hidden": [16, 16], "tau": 0.1})
    update(path, old.root, "the first")
    for read, real in zip(load_baseline(path), from_folder(old.root), strict=True):
        assert (
            read.name == real.name
            and read.vitals == real.vitals
            and (read.steps, read.interval, read.episodes) == (8000, 4000, 20)
        )
        for seed, numbers in real.seeds.items():
            assert read.seeds[seed] == pytest.approx(numbers, rel=1e-8)


def test_an_update_says_why_and_how_in_the_history(folder, normal, tmp_path):
    old, path = folder("old"), tmp_path / "baseline.csv"
    old.add(normal(100, 5, 20))
    old.add(normal(90, 5, 20), "sac", first=1, overrides={"hidden": [16, 16]})
    update(path, old.root, "the first")
    later = folder("later")
    later.add(normal(50, 5, 20))
    update(path, later.root, "a new\nversion")
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert re.fullmatch(r"# \d{4}-\d\d-\d\d the first \(2 cells, 40 runs of mopo-bench 0\.1\.0, commit c0ffee\)", head[0])
    budget, data = "--steps 8000 --evaluate-every 4000 --episodes 20", "--data regenerated --rows 1000"
    assert head[1] == f"#   mopo-bench run --tasks point-angle --algorithms mopo --seeds 0-19 {budget} {data}"
    assert head[2].endswith(f"--algorithms sac --seeds 1-20 {budget} {data} --set 'hidden=[16, 16]'")
    assert "a new version (1 cells, 20 runs" in head[3] and len(head) == 5
    mopo, sac = load_baseline(path)
    assert max(each["return"] for each in mopo.seeds.values()) < 70 < min(each["return"] for each in sac.seeds.values())


def test_an_update_refuses_what_makes_no_baseline(folder, normal, tmp_path):
    old, path = folder("old"), tmp_path / "baseline.csv"
    old.add(normal(100, 5, 19))
    with pytest.raises(UserError, match="has 19 seeds, a baseline 20"):
        update(path, old.root, "why")
    with pytest.raises(UserError, match="--reason"):
        update(path, old.root, " ", fewest=19)
    old.change(3, state="diverged", diverged_at=5)
    with pytest.raises(UserError, match="seed 3: diverged"):
        update(path, old.root, "why", fewest=19)
    with pytest.raises(UserError, match="no runs in"):
        update(path, tmp_path, "why")
    assert not path.exists()


def test_an_update_refuses_two_versions_of_one_cell(folder, normal, tmp_path):
    old = folder("old")
    old.add(normal(100, 5, 20))
    old.add(normal(100, 5, 20), identity="later")
    with pytest.raises(UserError, match="several versions"):
        update(tmp_path / "baseline.csv", old.root, "why")


def test_seeds_of_different_length_make_no_baseline(folder, normal, tmp_path):
    old = folder("old")
    old.add(normal(100, 5, 20))
    old.add(normal(100, 5, 1), first=20, steps=9000)
    with pytest.raises(UserError, match="seed 0: done at step 8,000, not at 9,000"):
        update(tmp_path / "baseline.csv", old.root, "why")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (r",100,50,20,0,[\d.]+", ",100,50,20,0,nan", "return is nan"),
        (r",100,50,20,0,[\d.]+", ",100,50,20,0,", "no return"),
        (r",100,50,20,0,[\d.]+", ",100,50,20,0,1e300", "return is 1e.300, larger than 1e.100"),
        (r",100,50,20,0,", ",100,50,20,1,", "has seed 1 twice"),
        (r",100,50,20,0,", ",100,50,20,zero,", "zero"),
        (r"loss:both", "loss", "'loss' is no vital"),
        (r",100,50,20,0,([\d.]+),,[\d.]+", r",100,50,20,0,\1,,", "seed 0: no loss"),
        (r",100,50,20,0,([\d.]+),,", r",100,50,20,0,\1,7,", "no score"),
        (r",problem,", ",", "it has no column problem"),
        (r"(?s)(,100,50,20,5,).*", r"\1", "row 6 has not as many values"),
        (r",return", ",returned", "'returned' is no vital"),
    ],
)
def test_a_damaged_file_is_refused(folder, normal, tmp_path, before, after, said):
    old, path = folder("old"), tmp_path / "baseline.csv"
    old.add(normal(100, 5, 20), steps=100, vitals={"loss": normal(1, 0.1, 20)})
    update(path, old.root, "why")
    damaged, count = re.subn(before, after, path.read_text(), count=1)
    assert count == 1
    path.write_text(damaged)
    with pytest.raises(UserError, match=f"baseline.csv is damaged.*{said}"):
        load_baseline(path)


def test_an_empty_or_absent_baseline_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"there is no baseline .*--update --reason"):
        load_baseline(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_text("# nothing\n")
    for path in (tmp_path / "empty.csv", tmp_path):
        with pytest.raises(UserError, match="nothing to compare with"):
            load_baseline(path)
