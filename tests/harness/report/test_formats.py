import io
import json
import re
from html.parser import HTMLParser

import pandas
import pytest
from mopo_bench.harness.report.comparisons import comparisons
from mopo_bench.harness.report.formats import Entry, Table, bracketed
from mopo_bench.harness.report.tables import scores_table, table1, table2
from rich.console import Console

HOPPER = "hopper-medium"


@pytest.fixture
def awkward():
    """Every special character of every format, a bold and a plain number, entries of unequal height."""
    nasty = r"a_b & 50% #1 {x} ~ ^ \ | <i> *y* $z$ `c` [b=5]"
    numbers = Entry(
        task="t", algorithm=nasty, unit="score", data="d", steps="10", mean=-1.25, std=0.5, low=-2.0, high=-0.5, seeds=3,
        bold=True, paper_mean=2.0, paper_std=1.0, mark="†", difference=-3.25, diverged=1,
    )  # fmt: skip
    empty = Entry(task="t", algorithm="sac", unit="score")
    return Table(
        nasty, "last", ["Task", nasty, "SAC"], [[Entry("t"), numbers, empty], [Entry(nasty), empty, empty]], [nasty, "±"], True
    )


LINES = ["-1.2 ± 0.5", "[-2.0, -0.5]", "(2.0 ± 1.0)†", "Δ -3.2", "1 of 4 diverged"]


def test_csv_is_tidy_and_reads_back(awkward, records):
    frame = pandas.read_csv(io.StringIO(awkward.to_csv()))
    assert list(frame["algorithm"]) == [awkward.columns[1], "sac", "sac", "sac"]
    first = frame.iloc[0]
    assert (first["mean"], first["std"], first["low"], first["paper_mean"], first["difference"]) == (
        -1.25,
        0.5,
        -2.0,
        2.0,
        -3.25,
    )
    assert (first["seeds"], first["metric"], first["data"], first["steps"]) == (3, "last", "d", 10)
    assert frame["mean"].isna().tolist() == [False, True, True, True]
    records.add([1000.0, 1100.0])
    real = pandas.read_csv(io.StringIO(table1(records.runs()).to_csv()))
    assert len(real) == 72 and not real.duplicated(["task", "data", "algorithm", "metric"]).any()
    assert real.set_index(["task", "algorithm"])["mean"].dropna().to_dict() == {(HOPPER, "mopo"): records.cell().mean}


def test_json_reads_back(awkward):
    back = json.loads(awkward.to_json())
    assert [[Entry(**cell) for cell in row] for row in back["rows"]] == awkward.rows
    assert (back["columns"], back["notes"], back["metric"]) == (awkward.columns, awkward.notes, "last")


class Reader(HTMLParser):
    """Texts of the cells by tag, with open tags checked."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.rows = [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.rows += tag == "tr"
        if tag == "br":
            self.texts[-1][1] += "\n"
            return
        assert tag in {"table", "caption", "thead", "tbody", "tfoot", "tr", "td", "th", "strong", "small"}, tag
        self.open.append(tag)
        if tag in ("td", "th", "caption"):
            self.texts.append([tag, ""])

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th", "caption"} & set(self.open):
            self.texts[-1][1] += data


def test_html_reads_back(awkward):
    reader = Reader(awkward.to_html())
    assert not reader.open and reader.rows == 4
    assert reader.texts[0] == ["caption", awkward.title]
    assert [text for tag, text in reader.texts if tag == "th"] == awkward.columns
    cells = [text for tag, text in reader.texts if tag == "td"]
    assert cells == ["t", "\n".join(LINES), "–", awkward.title, "–", "–", f"{awkward.title}\n±"]
    assert "<strong>-1.2 ± 0.5</strong>" in awkward.to_html()


def test_markdown_reads_back(awkward):
    text = awkward.to_markdown()
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table]
    assert [len(row) for row in cells] == [3] * 4
    plain = [[re.sub(r"\\([\\|*_`<>])", r"\1", cell.strip()) for cell in row] for row in cells]
    assert plain[0] == awkward.columns
    assert plain[2] == ["t", "**-1.2 ± 0.5**<br>" + "<br>".join(LINES[1:]), "–"]
    assert not re.search(r"(?<!\\)<(?!br>)", text)
    assert text.splitlines()[-1] == "- ±"


def test_latex_is_sound(awkward, records):
    records.add([1000.0, 1100.0])
    for table in (awkward, table1(records.runs()), table2([]), comparisons(records.runs())):
        text = table.to_latex()
        assert text.isascii()
        layout, inside = re.search(r"\\begin\{tabular\}\{([lc]+)\}\n(.*)\\end\{tabular\}", text, re.S).groups()
        assert len(layout) == len(table.columns)
        assert inside.count("\\midrule") == 1
        inside = inside.partition("\\midrule")[2]
        lines = [line for line in inside.splitlines() if line and not re.fullmatch(r"\\(bottomrule|addlinespace)", line)]
        heights = [max(len(cell.lines(table.intervals)) for cell in row) for row in table.rows]
        assert len(lines) == sum(heights)
        for line in lines:
            assert line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == len(layout) - 1
        assert not re.search(r"(?<!\\)[#%_]", text)
        assert len(re.findall(r"(?<!\\)\{", text)) == len(re.findall(r"(?<!\\)\}", text))
        assert len(re.findall(r"(?<!\\)\$", text)) % 2 == 0
    assert r"\textbf{$-$1.2 $\pm$ 0.5}" in awkward.to_latex()
    assert (
        r"a\_b \& 50\% \#1 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{} \textbar{} \textless{}i\textgreater{}"
        in (awkward.to_latex())
    )


@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_wide_table_in_latex_is_cut_into_tabulars_that_can_be_read(count, records):
    for number in range(count):
        overrides = {"rollout_length": 1000 + number, "depth": number}
        records.add([1000.0, 1100.0, 1200.0], identity=f"a{number}", overrides=overrides)
    table = scores_table(records.runs())
    tabulars = re.findall(r"\\toprule\n(.*?)\\midrule\n(.*?)\\bottomrule", table.to_latex(), re.S)
    assert len(tabulars) == {1: 1, 4: 1, 12: 3}[count]
    found = []
    for head, body in tabulars:
        heads = [" ".join(filter(None, words)) for words in zip(*cells(head), strict=True)]
        assert heads[:3] == ["Task", "Data", "Unit"] and cells(body)[0][:3] == [HOPPER, "v0", "score"]
        widest = [max(map(len, column)) for column in zip(*cells(head), *cells(body), strict=True)]
        assert sum(widest) <= 160
        found += heads[3:]
    assert found == table.columns[3:]


def cells(lines):
    """The plain text of each cell of each line of a tabular."""
    text = re.sub(r"\\textbf\{(.*?)\}", r"\1", lines).replace("\\addlinespace\n", "").replace(r"$\pm$", "±").replace("\\_", "_")
    return [[cell.strip() for cell in line.removesuffix(r" \\").split("&")] for line in text.replace("$", "").splitlines()]


def test_the_terminal_takes_brackets_literally(awkward):
    stream = io.StringIO()
    Console(file=stream, width=200).print(awkward.to_rich())
    for text in (*LINES, "SAC"):
        assert text in stream.getvalue()
    assert stream.getvalue().count(awkward.title) == 4  # title, column, row, note


def test_minus_nought_is_nought():
    assert Entry(task="t", algorithm="a", mean=-0.04, std=0.0, difference=-0.01).lines() == ["0.0 ± 0.0", "Δ +0.0"]


@pytest.mark.parametrize(
    "bounds, text",
    [
        ((0.04, 8.4), "[0.04, 8.4]"),  # clear, and had read as "[0.0, 8.4]"
        ((-0.0123, 3.0), "[-0.01, 3.0]"),
        ((-2.0, 0.0), "[-2.0, 0.0]"),
        ((-0.06, 0.05), "[-0.1, 0.1]"),
        ((-2.8e-17, 3.2e-5), "[0.0, 0.00003]"),
    ],
)
def test_a_bound_reads_as_0_only_where_it_is(bounds, text):
    assert bracketed(*bounds) == text
