"""`mopo-bench check` as scripts see it: exit status, files, and what is printed."""

import json
from io import StringIO
from xml.etree import ElementTree

import numpy as np
import pytest
from mopo_bench.harness.check import checking, formats
from mopo_bench.harness.runs.records import Store
from rich.console import Console


def fill(root, means, count, first=0):
    """Seeds of each algorithm around its mean, with one vital."""
    for algorithm, mean in means.items():
        folder = Store(root).cell_folder("point-angle", algorithm, "abc")
        data = {"label": "point-angle@regenerated", "digest": "d" * 64, "source": "regenerated", "window": "all", "rows": 1000}
        about = {"task": "point-angle", "algorithm": algorithm, "versions": {"learner": 1}, "package": "0.1.0"}
        Store(root).write_cell(folder, {**about, "config": {}, "data": data})
        for index, value in enumerate(np.random.default_rng(first).normal(mean, 2, count).tolist()):
            row = {"step": 8000, "returns": [value], "return_mean": value, "entropy": -3 + 0.01 * index % 0.05}
            record = {"seed": first + index, "state": "done", "steps": 8000, "evaluations": [row]}
            Store(root).write_record(folder / f"seed-{first + index}", record)


@pytest.fixture
def old(tmp_path):
    fill(tmp_path / "old", {"mopo": 110, "sac": 60}, 20)
    return tmp_path / "old"


def test_exit_status(command, old, tmp_path):
    outcomes = {"good": {"mopo": 110, "sac": 60}, "bad": {"mopo": 70, "sac": 60}, "part": {"mopo": 110}}
    for name, means in outcomes.items():
        fill(tmp_path / name, means, 5, first=100)
    done = {name: command("check", "--results", tmp_path / name, "--baseline", old) for name in outcomes}
    assert {name: each.code for name, each in done.items()} == {"good": 0, "bad": 1, "part": 3}
    assert "Regression check: pass" in done["good"].out
    assert "REGRESSION" in done["bad"].out and "UNDECIDED" in done["part"].out
    assert "point-angle sac: missing: no runs in the folder." in done["part"].out
    for each in done.values():
        assert "Margin: 2 %" in each.out and "Error rate: 0.05" in each.out and "Power" in each.out


def test_wrong_use_exits_with_2_in_one_line(command, old, tmp_path):
    for words in (
        ["--baseline", tmp_path / "none.csv"],
        ["--baseline", old, "--results", tmp_path / "none"],
        ["--baseline", old, "--error-rate", 7],
        ["--baseline", old, "--tasks", "point-angel"],
        ["--reason", "why"],
        ["--update", "--results", old],
        ["--update", "--results", old, "--reason", "why", "--baseline", old],
    ):
        done = command("check", "--results", old, *words)
        assert done.code == 2 and done.err.count("\n") == 1 and not done.out, words


def test_update_writes_a_baseline_that_the_same_runs_pass(command, old, tmp_path):
    path = tmp_path / "baseline.csv"
    done = command("check", "--update", "--reason", "the first", "--results", old, "--baseline", path)
    assert done.code == 0 and "2 cells are in" in done.out
    assert path.read_text().startswith("# ") and "the first" in path.read_text()
    assert command("check", "--results", old, "--baseline", path).code == 0


def test_json_junit_and_markdown(command, old, tmp_path):
    fill(tmp_path / "new", {"mopo": 70}, 5, first=100)
    junit, summary = tmp_path / "check.xml", tmp_path / "summary.md"
    summary.write_text("# Before\n")
    files = ["--junit", junit, "--markdown", summary]
    done = command("check", "--results", tmp_path / "new", "--baseline", old, "--json", *files)
    report = json.loads(done.out)
    assert done.code == report["exit_status"] == 1 and report["verdict"] == "regression"
    assert [cell["verdict"] for cell in report["cells"]] == ["regression", "undecided"]
    assert report["cells"][0]["findings"][0]["new_mean"] == pytest.approx(70, abs=3)
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert suite.find("testcase/failure").get("message").startswith("mean ")
    assert suite.find("testcase[@classname='point-angle.sac']/error").get("message").startswith("missing")
    properties = {each.get("name"): each.get("value") for each in suite.iter("property")}
    assert properties["margin"] == "0.02" and properties["error_rate"] == "0.05"
    text = summary.read_text()
    assert text.startswith("# Before\n") and "| point-angle mopo, return | **REGRESSION** |" in text


def test_names_from_records_are_printable_in_xml(old, tmp_path):
    fill(tmp_path / "old", {"odd\x1b[31m<&>": 50}, 20)
    fill(tmp_path / "new", {"odd\x1b[31m<&>": 50}, 5, first=100)
    text = formats.junit(checking.check(tmp_path / "new", tmp_path / "old"))
    assert "point-angle.odd [31m&lt;&amp;&gt;" in text and ElementTree.fromstring(text) is not None


@pytest.mark.parametrize("means", [{"mopo": 110, "sac": 60}, {"mopo": 70, "sac": 60}, {"mopo": 110}])
def test_the_table_fits_80_columns(old, tmp_path, means):
    fill(tmp_path / "new", means, 5, first=100)
    console = Console(width=80, file=StringIO())
    console.print(formats.table(checking.check(tmp_path / "new", old)).to_rich())
    lines = console.file.getvalue().splitlines()
    whole = (line.replace("\N{NO-BREAK SPACE}", " ") for line in lines)
    assert max(map(len, lines)) <= 80 and any("109.6 ± 1.7" in line and "≥ 105" in line for line in whole)
