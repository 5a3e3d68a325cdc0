"""What a check found, as a table for the terminal and for GitHub's summaries, and as JUnit XML."""

from __future__ import annotations

from collections.abc import Iterator
from xml.etree import ElementTree

from ..report.formats import Entry, Table, span
from .checking import PASS, REGRESSION, UNDECIDED, WIDE, CellReport, Finding, Report, number

MARKS = {PASS: "pass", REGRESSION: "REGRESSION", UNDECIDED: "UNDECIDED"}
TIE = "\N{NO-BREAK SPACE}"
HEADS = ["Cell", "Verdict", "Baseline", "New", "Allowed", "p", "Power"]


def table(report: Report) -> Table:
    """A row for each cell's return, one for each vital that is a regression, and what else is to be known below."""
    rows = [row for cell in report.cells for row in _rows(cell)]
    return Table(
        f"Regression check: {report.verdict}", "last", HEADS, rows, [*_reasons(report), *report.notes, *method(report)]
    )


def _rows(cell: CellReport) -> Iterator[list[Entry]]:
    if not cell.findings:
        yield _row(cell.title, MARKS[cell.verdict], *[""] * 5)
        return
    score, *vitals = cell.findings
    verdict = cell.verdict if cell.verdict == UNDECIDED else score.verdict
    yield _finding_row(f"{cell.title}, {score.quantity}", verdict, score)
    for vital in vitals:
        if vital.verdict == REGRESSION:
            yield _finding_row(f"{cell.title}, {vital.quantity}", vital.verdict, vital)


def _finding_row(title: str, verdict: str, found: Finding) -> list[Entry]:
    return _row(
        title,
        MARKS[verdict],
        f"{number(found.mean)}{TIE}{'×÷' if found.logarithmic else '±'}{TIE}{found.spread:.2g} ({found.behind})",
        f"{number(found.new_mean)} ({found.new_seeds})",
        found.limit.replace(" ", TIE, 1),
        f"{found.adjusted:.2g}",
        "" if found.power is None else f"{found.power:.0%}",
    )


def _row(*texts: str) -> list[Entry]:
    return [Entry(text, bold=text in (MARKS[REGRESSION], MARKS[UNDECIDED])) for text in texts]


def _reasons(report: Report) -> list[str]:
    return [f"{cell.title}: {reason}." for cell in report.cells for reason in cell.reasons]


def method(report: Report) -> list[str]:
    """What was tested and how strictly: margin, error rate, power."""
    options, findings = report.options, [each for cell in report.cells for each in cell.findings]
    counts = {state: len(report.in_state(state)) for state in (PASS, REGRESSION, UNDECIDED)}
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    vitals = [each for cell in report.cells for each in cell.findings[1:]]
    halves = " (half for returns, half for vitals)" if vitals else ""
    lines = [
        f"Cells: {said}. Records of {report.results}, baseline {report.baseline}.",
        f"Margin: {100 * options.margin:.3g} % of the baseline's mean may be lost. Error rate: {options.error_rate:g}{halves}, "
        f"the chance of any false alarm over all cells, by Holm's rule; p is adjusted by it.",
        "Baseline: mean ± standard deviation (seeds). New: mean (seeds) at the same step. Allowed: the prediction limit for "
        "the new mean. Beyond it is a regression, if the new seeds' ranks among the baseline's are beyond chance, too.",
        f"Power: how often so many new seeds show a return that is {100 * options.effect:.3g} % worse.",
    ]
    if options.sequential:
        looks = f"{span(options.looks)} seeds"
        lines.append(f"One looks after {looks}; p is that of all looks together, so that one may stop at any of them.")
    if vitals:
        lines.append(f"Vitals tested: {len(vitals)}; shown where they are a regression.")
        if any(each.logarithmic for each in vitals):
            lines.append(f"×÷: by logarithms, geometric mean and factor, where the baseline spans more than {WIDE:g} times.")
    elif findings:
        lines.append("No vitals were tested.")
    return lines


def markdown(report: Report) -> str:
    """For a GitHub summary."""
    return table(report).to_markdown()


def junit(report: Report) -> str:
    """JUnit XML: a test case for each number of each cell; a regression is a failure, an undecided cell an error."""
    suite = ElementTree.Element("testsuite", name="mopo-bench check")
    properties = ElementTree.SubElement(suite, "properties")
    options = report.options
    for name in ("margin", "effect", "error_rate", "seeds", "sequential"):
        ElementTree.SubElement(properties, "property", name=name, value=f"{getattr(options, name)}")
    for cell in report.cells:
        if cell.verdict == UNDECIDED:
            _case(suite, cell, "decided", "error", "; ".join(cell.reasons))
        for found in cell.findings:
            said = f"mean {number(found.new_mean)} of {found.new_seeds} seeds, allowed {found.limit}, p {found.adjusted:.2g}"
            _case(suite, cell, found.quantity, "failure" if found.verdict == REGRESSION else "", said)
    for kind in ("failure", "error"):
        suite.set(f"{kind}s", str(len(suite.findall(f"testcase/{kind}"))))
    suite.set("tests", str(len(suite.findall("testcase"))))
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)


def _case(suite: ElementTree.Element, cell: CellReport, name: str, outcome: str, said: str) -> None:
    label = f"{cell.task}.{cell.algorithm}" + f" [{cell.settings}]" * bool(cell.settings)
    case = ElementTree.SubElement(suite, "testcase", classname=_printable(label), name=_printable(name))
    if outcome:
        ElementTree.SubElement(case, outcome, message=_printable(said)).text = _printable(said)
    else:
        ElementTree.SubElement(case, "system-out").text = _printable(said)


def _printable(text: str) -> str:
    """Without the control characters that XML forbids: names and reasons come from files."""
    return "".join(each if each.isprintable() else " " for each in text)
