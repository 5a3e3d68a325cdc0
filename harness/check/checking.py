"""Whether new seeds of each cell are worse than the baseline's, by more than chance and a margin.

Two families of tests, the returns and the vitals, share the error rate in halves; within each Holm's rule holds the chance of
any false alarm below its half. What cannot be decided never passes: a cell that is missing, failed, diverged, unfinished, not
finite or damaged is undecided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ...common.errors import UserError, unknown
from ..report.gathering import Names, names_of
from ..report.statistics import holm, mean
from ..runs.ledger import existing_folder
from ..runs.records import UNKNOWN_TIME
from .baseline import BaselineCell, default_path, load_baseline, without
from .options import Options
from .prediction import FEWEST_BEHIND, LOW, Prediction
from .recorded import Name, Numbers, Recorded, read_cells

PASS, REGRESSION, UNDECIDED = "pass", "regression", "undecided"
WIDE = 4.0  # a vital whose baseline spans more than this factor is compared by its logarithm: its distribution is skewed
EXIT_STATUS = {PASS: 0, REGRESSION: 1, UNDECIDED: 3}


class Drop(NamedTuple):
    """A drop by `effect` that so many new seeds are to show at `level`: how often they do is simulated, which takes a while."""

    prediction: Prediction
    effect: float
    seeds: int
    level: float


@dataclass(frozen=True)
class Finding:
    """What the check says of one number of a cell: its score or return, or a vital.

    mean, spread and behind are the baseline's: mean, sample standard deviation and number of seeds; new_mean and new_seeds
    the new ones'. low and high: beyond them the new mean is a regression, if the ranks of the new seeds say so, too (None:
    that side is not gated). p_value: of the new mean and of the ranks, whichever is larger, were the true ones worse by the
    margin; adjusted: by Holm's rule. drop: of the stated effect; None of a vital. logarithmic: the means are geometric, and the
    spread is a factor.
    """

    quantity: str
    direction: str
    mean: float
    spread: float
    behind: int
    new_mean: float
    new_seeds: int
    low: float | None
    high: float | None
    p_value: float
    drop: Drop | None
    logarithmic: bool = False
    adjusted: float = 1.0
    verdict: str = PASS

    @cached_property
    def power(self) -> float | None:
        """How often a drop of the stated effect is found; None of a vital."""
        return None if self.drop is None else self.drop.prediction.power(*self.drop[1:])

    @property
    def limit(self) -> str:
        """In words where the new mean may lie."""
        if self.low is None or self.high is None:
            return f"≥ {number(self.low)}" if self.high is None else f"≤ {number(self.high)}"
        return f"{number(self.low)} to {number(self.high)}"


@dataclass(frozen=True)
class CellReport:
    """What the check says of one cell. findings: its return first. reasons: why it is undecided. next_seed: to be run next,
    where one looks after every seed and this one is not decided yet."""

    task: str
    algorithm: str
    settings: str
    data: str
    verdict: str
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    next_seed: int | None = None

    @property
    def title(self) -> str:
        return str(Name(self.task, self.algorithm, self.settings, self.data, ""))


@dataclass(frozen=True)
class Report:
    """The outcome of a check. notes: what a reader must know besides."""

    cells: tuple[CellReport, ...]
    options: Options
    baseline: str
    results: str
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """A regression wherever there is one, else undecided wherever that is so."""
        found = {cell.verdict for cell in self.cells}
        return next(each for each in (REGRESSION, UNDECIDED, PASS) if each in found)

    @property
    def exit_status(self) -> int:
        """0 all cells pass, 1 a regression, 3 at least one cell could not be decided."""
        return EXIT_STATUS[self.verdict]

    def in_state(self, verdict: str) -> list[CellReport]:
        return [cell for cell in self.cells if cell.verdict == verdict]

    def as_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        found = asdict(self)
        for cell, shown in zip(self.cells, found["cells"], strict=True):
            for finding, each in zip(cell.findings, shown["findings"], strict=True):
                del each["drop"]
                each["power"] = finding.power
        return {"verdict": self.verdict, "exit_status": self.exit_status, **found}


def check(
    results: Path | str = "runs",
    baseline: Path | str | None = None,
    *,
    tasks: Names = (),
    algorithms: Names = (),
    **options: Any,
) -> Report:
    """Compares the run records in a folder with a baseline, as `mopo-bench check` does.

    baseline: a file as `mopo-bench check --update` writes it, or another results folder; by default the package's own. tasks,
    algorithms: the only cells of the baseline that are looked at; all by default. options: the fields of `Options`. Raises
    UserError, one line, for wrong use.

        from mopo_bench import check
        report = check("runs/new", baseline="runs/old")
        print(report.verdict, [cell.title for cell in report.in_state("regression")])
    """
    chosen = Options(**options)
    where = default_path() if baseline is None else Path(baseline)
    known = load_baseline(where)
    asked = _asked(known, names_of(tasks, "--tasks"), names_of(algorithms, "--algorithms"))
    recorded, unreadable = read_cells(existing_folder(results), {cell.steps for cell in asked})
    cells, compared = compare(asked, recorded, unreadable, chosen)
    return Report(tuple(cells), chosen, str(where), str(results), tuple(_notes(known, asked, recorded, compared, cells)))


def _asked(cells: Sequence[BaselineCell], tasks: Sequence[str], algorithms: Sequence[str]) -> list[BaselineCell]:
    """The cells of these tasks and algorithms, of which each must be in the baseline."""
    for kind, wanted, there in (
        ("task", tasks, {cell.name.task for cell in cells}),
        ("algorithm", algorithms, {cell.name.algorithm for cell in cells}),
    ):
        for each in wanted:
            if each not in there:
                raise unknown(f"{kind} of the baseline", each, there)
    asked = [
        cell
        for cell in cells
        if (not tasks or cell.name.task in tasks) and (not algorithms or cell.name.algorithm in algorithms)
    ]
    if not asked:
        raise UserError(f"the baseline has no {', '.join(algorithms)} on {', '.join(tasks)}")
    return asked


class _Test(NamedTuple):
    """The new seeds' values of one number beside its prediction from the baseline; both by their logarithms, if so."""

    prediction: Prediction
    new: list[float]
    logarithmic: bool = False


@dataclass(frozen=True)
class _Compared:
    """A cell of the baseline beside the new seeds, before any verdict.

    identity: of the new runs. tests: by quantity.
    """

    cell: BaselineCell
    identity: str = ""
    seeds: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    tests: Mapping[str, _Test] | None = None


def compare(
    cells: Sequence[BaselineCell],
    recorded: Sequence[Recorded],
    unreadable: Mapping[tuple[str, str], Sequence[str]],
    options: Options,
) -> tuple[list[CellReport], list[_Compared]]:
    """What a check says of these cells of a baseline beside those of a results folder, as `read_cells` gives them."""
    compared = [_compared(cell, recorded, unreadable, options) for cell in cells]
    level = options.error_rate / (2 if options.vitals and any(each.cell.vitals for each in compared) else 1)
    judged = _judged(compared, level, options)
    return [
        _verdict(found, each, level / len(compared), options) for found, each in zip(judged, compared, strict=True)
    ], compared


def _compared(
    cell: BaselineCell,
    recorded: Sequence[Recorded],
    unreadable: Mapping[tuple[str, str], Sequence[str]],
    options: Options,
) -> _Compared:
    """Finds the new seeds of a cell, or what keeps it from being compared."""
    faults = [f"of the baseline, {cell.fault}"] * bool(cell.fault)
    if len(cell.seeds) < FEWEST_BEHIND:
        faults.append(f"the baseline has {len(cell.seeds)} seeds with numbers, a limit needs {FEWEST_BEHIND}")
    faults += unreadable.get((cell.name.task, cell.name.algorithm), [])
    same = [each for each in recorded if each.name == cell.name]
    if not same:
        return _Compared(cell, faults=(*faults, *_missing(cell.name, recorded)))
    if len(same) > 1:
        begun = {each.identity: each.begun for each in sorted(same, key=lambda each: each.begun)}
        versions = ", ".join(f"{identity} begun {date or UNKNOWN_TIME}" for identity, date in begun.items())
        return _Compared(cell, faults=(*faults, f"run by several versions of its code ({versions}): keep one in the folder"))
    numbers, found = same[0].numbers(cell.steps, cell.episodes, cell.interval if options.vitals and cell.vitals else None)
    gated = list(cell.vitals) if options.vitals else []
    faults += [*found, *same[0].one_training(cell.steps, cell.seeds.values())]
    faults += [f"seed {seed}: {what}" for seed, each in numbers.items() for what in without((cell.measure, *gated), each)]
    if len(same[0].records) < options.seeds:
        faults.append(f"{len(same[0].records)} of {options.seeds} new seeds are there")
    if faults:
        return _Compared(cell, same[0].identity, tuple(numbers), tuple(faults))
    seeds = tuple(sorted(numbers))[: options.sequential]
    tests = {name: _test(cell, name, numbers, seeds, options) for name in (cell.measure, *gated)}
    return _Compared(cell, same[0].identity, seeds, tests=tests)


def _missing(name: Name, recorded: Sequence[Recorded]) -> list[str]:
    """That there are no runs of a cell; with what sets the nearest ones apart, if there are any."""
    others = {each.name: each for each in recorded if (each.name.task, each.name.algorithm) == (name.task, name.algorithm)}
    said = []
    for other, found in others.items():
        if other.settings != name.settings:
            said.append(f"settings {other.settings or 'at their defaults'}")
        elif other.data != name.data:
            said.append(f"data {other.data}")
        else:
            said.append(f"other rules of the task, or another dataset under that name (here its digest is {found.digest[:8]})")
    return [f"missing: the folder has runs with {'; '.join(said)}" if said else "missing: no runs in the folder"]


def _test(cell: BaselineCell, name: str, numbers: Mapping[int, Numbers], seeds: Sequence[int], options: Options) -> _Test:
    """One number's prediction from the baseline, and its new values."""
    before, new = [each[name] for each in cell.seeds.values()], [numbers[seed][name] for seed in seeds]
    direction = cell.vitals.get(name, LOW)
    if name != cell.measure and 0 < WIDE * min(before) < max(before):
        logarithms = tuple(map(math.log, before))
        prediction = Prediction(logarithms, math.log1p(options.margin), direction)
        return _Test(prediction, [math.log(value) if value > 0 else -math.inf for value in new], logarithmic=True)
    return _Test(Prediction(tuple(before), options.margin * abs(mean(before)), direction), new)


def _judged(compared: Sequence[_Compared], level: float, options: Options) -> list[list[Finding]]:
    """The findings of each cell. A test that cannot be made counts in its family, as one that shows nothing.

    level: the chance of any false alarm of the returns, and likewise of the vitals.
    """
    measures = [(place, each.cell.measure) for place, each in enumerate(compared)]
    vitals = [(place, name) for place, each in enumerate(compared) for name in each.cell.vitals if options.vitals]
    found: list[list[Finding]] = [[] for _ in compared]
    for family in (measures, vitals):
        tests = [(compared[place].tests or {}).get(name) for place, name in family]
        p_values = [1.0 if test is None else test.prediction.p_value(test.new, options.looks) for test in tests]
        for (place, name), test, p_value, adjusted in zip(family, tests, p_values, holm(p_values), strict=True):
            if test is not None:
                each = _finding(name, test, p_value, family is measures, level / len(family), options)
                verdict = REGRESSION if adjusted <= level else PASS
                found[place].append(replace(each, adjusted=adjusted, verdict=verdict))
    return found


def _finding(name: str, test: _Test, p_value: float, measure: bool, level: float, options: Options) -> Finding:
    """A finding before Holm's rule. level: of this test alone, by Bonferroni's."""
    prediction, new, logarithmic = test
    shown = math.exp if logarithmic else float
    effect = options.effect * abs(prediction.mean)
    least = level / max(1, len(options.looks))
    low, high = prediction.limits(len(new), least)
    return Finding(
        quantity=name,
        direction=prediction.direction,
        mean=shown(prediction.mean),
        spread=shown(prediction.spread),
        behind=len(prediction.values),
        new_mean=shown(mean(new)),
        new_seeds=len(new),
        low=shown(low) if low > -math.inf else None,
        high=shown(high) if high < math.inf else None,
        p_value=p_value,
        drop=Drop(prediction, effect, options.sequential or len(new), least) if measure else None,
        logarithmic=logarithmic,
    )


def _verdict(findings: Sequence[Finding], compared: _Compared, level: float, options: Options) -> CellReport:
    """One cell's verdict from its findings, or from its faults. level: of its return alone."""
    name = compared.cell.name
    report = CellReport(*name[:4], PASS, tuple(findings), compared.faults)
    if compared.faults or compared.tests is None:
        return replace(report, verdict=UNDECIDED)
    if any(each.verdict == REGRESSION for each in findings):
        return replace(report, verdict=REGRESSION)
    prediction, new, _ = compared.tests[compared.cell.measure]
    if prediction.least_p_value(options.sequential or len(new), options.looks) > level:
        said = f"{len(new)} new seeds beside {len(prediction.values)} can show no regression at this error rate: run more"
        return replace(report, verdict=UNDECIDED, reasons=(said,))
    if options.sequential is None or len(new) >= options.sequential:
        return report
    if prediction.not_worse_by(options.effect * abs(prediction.mean), new, options.looks) <= options.error_rate:
        return report
    said = f"{len(new)} seeds do not tell yet, of at most {options.sequential}: run seed {max(compared.seeds) + 1}"
    return replace(report, verdict=UNDECIDED, reasons=(said,), next_seed=max(compared.seeds) + 1)


def _notes(
    known: Sequence[BaselineCell],
    asked: Sequence[BaselineCell],
    recorded: Sequence[Recorded],
    compared: Sequence[_Compared],
    cells: Sequence[CellReport],
) -> list[str]:
    """What was not looked at, what was made by other code, and seeds that are no new ones."""
    notes = []
    if len(asked) < len(known):
        notes.append(f"{len(asked)} of the baseline's {len(known)} cells were asked for.")
    names = {cell.name for cell in known}
    if new := [str(each.name) for each in recorded if each.name not in names]:
        notes.append(f"Not in the baseline, not checked: {', '.join(new)}.")
    if other := [str(each.cell.name) for each in compared if each.identity not in ("", each.cell.identity)]:
        notes.append(f"Other versions of the code, or other defaults, than the baseline's: {', '.join(other)}.")
    passing = [found for found, cell in zip(compared, cells, strict=True) if cell.verdict == PASS]
    if low := [each for found in passing for each in _collapsed(found)]:
        notes.append(f"Far below every seed of the baseline, which alone is no regression: {', '.join(low)}.")
    if again := [str(each.cell.name) for each in compared if set(each.seeds) & set(each.cell.seeds)]:
        notes.append(f"Seeds that the baseline has, too, show less than new ones: {', '.join(again)}.")
    return notes


def _collapsed(compared: _Compared) -> list[str]:
    """The new seeds that lie below the baseline's lowest by more than its seeds span."""
    if not compared.tests:
        return []
    prediction, new, _ = compared.tests[compared.cell.measure]
    lowest = min(prediction.values)
    reach = max(prediction.values) - lowest
    return [
        f"{compared.cell.name} seed {seed} ({number(value)}, the baseline's lowest {number(lowest)})"
        for seed, value in zip(compared.seeds, new, strict=True)
        if reach and value < lowest - reach
    ]


def number(value: float | None) -> str:
    """A number in four digits."""
    return "" if value is None else f"{value:z.4g}"
