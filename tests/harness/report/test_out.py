"""`mopo-bench table ... --out FILE`: the name of the file says the format."""

import pytest
from mopo_bench.harness.cli.main import main
from mopo_bench.harness.report.formats import SUFFIXES
from mopo_bench.harness.report.tables import render


def written(records, name, *words):
    out = records.root.parent / name
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        arguments = ["table", "scores", "--results", records.root, "--out", out, *words]
        patch.setattr("sys.argv", ["mopo-bench", *map(str, arguments)])
        main()
    return ended.value.code, out.read_text() if out.exists() else None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_suffix_chooses_the_format(records, suffix):
    records.add([1000.0, 1100.0])
    expected = render("scores", records.runs(), records.root, SUFFIXES[suffix])
    assert written(records, f"scores{suffix}") == (0, expected + "\n")


def test_a_format_that_is_given_wins(records):
    records.add([1000.0, 1100.0])
    assert written(records, "scores.csv", "--format", "json")[1].startswith("[")


@pytest.mark.parametrize("words", [(), ("--format", "text")])
def test_without_a_format_to_write_both_ways_are_named(records, capsys, words):
    records.add([1000.0])
    assert written(records, "scores.docx", *words) == (2, None)
    said = " ".join(capsys.readouterr().err.split())
    assert "markdown" in said and ".tex" in said
