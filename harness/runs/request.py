"""What is asked for: one description of a grid, whether it comes from the command line, from Python or from a file.

A grid file is TOML with the fields of `RunRequest` as keys; `mopo-bench run --print-grid` writes one to keep and cite.
The suites that come with the package are such grids (`suites.toml`).

    tasks = ["hopper-medium", "point-angle"]
    algorithms = ["mopo", "sac"]
    seeds = "0-5"
    steps = { hopper-medium = 50_000, "hopper-medium:sac" = 20_000 }
    window = { mopo = "last_1m" }
    settings = { "hopper-medium:mopo.penalty_coefficient" = 2 }
"""

# ruff: noqa: RUF009 - `asked` makes fields, as `dataclasses.field` does
from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from importlib import resources
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

from ...common.errors import UserError, unknown
from ...common.settings import Choice, Count, Hexadecimal, converted
from ...tasks.data.request import SOURCES, WINDOWS, Source, Window

MOST_SEEDS = 10_000  # a slip of the finger, not a plan
Digest = Annotated[str, Hexadecimal(8, 64)]
PerCell = Count | Mapping[str, Count] | None  # one number for all cells, or one for each of some: see `of_cell`


class Setting(NamedTuple):
    """One `[TASK:][ALGORITHM.]KEY=VALUE`; without a task or an algorithm it is meant for all that have the key.

    of_grid: whether it stands in a suite or a grid file; it is then left out where the tasks or algorithms that it is meant for
    are not run. layer: settings of a later layer win; what is said beside a grid is one layer more.
    """

    name: str
    value: Any
    of_grid: bool = False
    layer: int = 0

    @property
    def task(self) -> str | None:
        return self.name.partition(":")[0] if ":" in self.name else None

    @property
    def key(self) -> str:
        """With the algorithm's name before it, where one is named."""
        return self.name.partition(":")[2] if ":" in self.name else self.name


def asked(default: Any, help: str, option: str = "") -> Any:
    """A field of the request with its help text; `option` is its name on the command line where that is another."""
    metadata = {"help": help, "option": option}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class RunRequest:
    """A grid of runs: which tasks, algorithms and seeds, on which data, with which budget and settings, and on which device.

    Every field takes what the command line takes (`seeds="0,1,5"`) and what Python has (`seeds=[0, 1, 5]`); it is checked here,
    once. Raises UserError, one line that names the field by its option.
    """

    tasks: tuple[Any, ...] = asked((), "Tasks, separated by commas.")
    algorithms: tuple[Any, ...] = asked((), "Algorithms, separated by commas.")
    without: tuple[Any, ...] = asked(
        (), "Cells that are left out, each TASK:ALGORITHM, separated by commas, besides those of a suite or grid."
    )
    seeds: tuple[int, ...] = asked((0, 1, 2), "A count (6), a list (0,1,5) or a range (21-23).")
    steps: PerCell = asked(None, "Gradient steps, or some by task or algorithm (1000000,bc=500000); the task's own by default.")
    data: Source = asked("auto", f"{SOURCES}.")
    window: Window | Mapping[str, Window] = asked(
        "all", f"{Choice(*WINDOWS)} rows of the dataset; or some by task or algorithm (mopo=last_1m,bc=first_1m)."
    )
    rows: PerCell = asked(None, "Rows of a regenerated dataset, or some by task or algorithm.")
    data_seed: int = asked(0, "Seed of a regenerated dataset; jump and angle: odd is the second collection.")
    data_digest: Digest | Mapping[str, Digest] | None = asked(
        None, "Refuse a dataset whose digest does not begin so; or some by task or algorithm (ant-angle=1f0c52aa)."
    )
    dataset: Path | None = asked(None, "Your own HDF5 file in D4RL's layout, for one task.")
    clip_actions: bool = asked(False, "Accept actions outside the box, clipped.")
    settings: tuple[Setting, ...] = asked(
        (), "KEY=VALUE, for some only: ALGORITHM.KEY=VALUE, TASK:KEY=VALUE; may be repeated.", "--set"
    )
    task_set: tuple[Setting, ...] = asked((), "TASK.PARAMETER=VALUE, such as ant-angle.angle=45 or 30,45,60; may be repeated.")
    evaluate_every: PerCell = asked(None, "Gradient steps between evaluations, or some by task or algorithm.")
    episodes: Count | None = asked(None, "Episodes per evaluation.")
    device: Annotated[str, Choice("auto", "cpu", "cuda")] = asked("auto", "auto, cpu or cuda.")
    compile: Annotated[str, Choice("auto", "on", "off")] = asked(
        "auto", "auto: long runs, where a C++ compiler works; or on, off."
    )
    capture: bool = asked(False, "Record steps as CUDA graphs; not measured yet.")
    evaluation_processes: int | None = asked(
        None, "Processes that evaluate beside training; by default one for each seed of a group on a GPU, else 0."
    )
    description: str = ""
    of_grid: frozenset[str] = frozenset()  # the fields that a suite or a grid file gave, and the cells that it leaves out

    def __post_init__(self) -> None:
        for name, kind in _kinds().items():
            value, option = getattr(self, name), option_of(name)
            try:
                object.__setattr__(self, name, _CONVERTERS.get(name, _as_declared)(value, kind, option))
            except (TypeError, ValueError):  # what only Python can say: a number where names belong
                raise UserError(f"{option} {value!r}: not what the option takes, see `mopo-bench run --help`") from None
        for name in ("data_seed", "evaluation_processes"):
            if (number := getattr(self, name)) is not None and number < 0:
                raise UserError(f"{option_of(name)} {number}: ask for 0 or more")
        if self.dataset is not None and self.rows is not None:
            raise UserError(f"--rows {self.rows} is for regenerated datasets: leave it out with --dataset {self.dataset}")
        if self.dataset is not None and self.data != "auto" and "data" not in self.of_grid:
            raise UserError(f"--data {self.data} has nothing to choose with --dataset {self.dataset}: leave it out")
        if self.dataset is not None and len(self.tasks) != 1:
            raise UserError(f"--dataset {self.dataset} belongs to one task: name it with --tasks")
        for name in ("tasks", "algorithms"):
            if not getattr(self, name):
                raise UserError(f"no {name}: name them with --{name}, or take a --suite (`mopo-bench list suites`)")

    @classmethod
    def of(cls, *, suite: str | None = None, grid: str | Path | None = None, **said: Any) -> RunRequest:
        """A suite's or a grid file's request with what is said beside: fields that are None or empty are not said.

        Settings and parameters of tasks that are said come after the grid's and win over them. Cells are left out besides those
        that the grid leaves out.
        """
        if suite is not None and grid is not None:
            raise UserError(f"--suite {suite} and --grid {grid}: choose one")
        base = get_suite(suite) if suite is not None else read_grid(Path(grid)) if grid is not None else {}
        for name in said:
            if name not in _kinds():
                raise unknown("option", name, _kinds(), "mopo-bench run --help")
        chosen = {name: value for name, value in said.items() if value is not None and not _is_empty(value)}
        of_grid = _as_settings(base.get("settings", ()), None, "settings", of_grid=True)
        if of_grid and "settings" in chosen:
            layer = 1 + max(setting.layer for setting in of_grid)
            asked = _as_settings(chosen["settings"], None, option_of("settings"))
            chosen["settings"] = (*of_grid, *(setting._replace(layer=layer) for setting in asked))
        task_set = _as_settings(base.get("task_set", ()), None, option_of("task_set"), of_grid=True)
        task_set += _as_settings(chosen.pop("task_set", ()), None, option_of("task_set"))
        left_out = _as_names(base.get("without", ()), None, option_of("without"))
        without = (*left_out, *_as_names(chosen.pop("without", ()), None, option_of("without")))
        both = {"settings": of_grid, "task_set": task_set, "without": without}
        of_grid_alone = frozenset(base) - {*chosen, "without"} | frozenset(map(str, left_out))
        return cls(**{**base, **both, **chosen}, of_grid=of_grid_alone)

    def to_grid(self) -> dict[str, Any]:
        """The request as a grid file holds it: every field that is not at its default, names instead of objects."""
        grid: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in ("tasks", "algorithms"):
                value = [getattr(one, "name", one) for one in value]
            elif value == each.default or each.name == "of_grid":
                continue
            elif each.name in ("settings", "task_set"):
                layers: dict[int, dict[str, Any]] = {}
                for setting in value:
                    layers.setdefault(setting.layer, {})[setting.name] = setting.value
                value = list(layers.values()) if len(layers) > 1 else next(iter(layers.values()))
            elif isinstance(value, tuple | Mapping):
                value = dict(value) if isinstance(value, Mapping) else list(value)
            elif isinstance(value, Path):
                value = str(value.absolute())
            grid[each.name] = value
        return grid


def _is_empty(value: Any) -> bool:
    return isinstance(value, list | tuple) and not value


@cache
def _kinds() -> dict[str, Any]:
    kinds = get_type_hints(RunRequest, include_extras=True)
    del kinds["of_grid"]
    return kinds


def option_of(name: str) -> str:
    """How a field is called on the command line: `--evaluate-every`."""
    (found,) = [each for each in fields(RunRequest) if each.name == name]
    return found.metadata.get("option") or f"--{name.replace('_', '-')}"


def _as_declared(value: Any, kind: Any, option: str) -> Any:
    if kind == Path | None:
        return None if value is None else Path(value)
    return converted(value, kind, option)


def _as_names(value: Any, kind: Any, option: str) -> tuple[Any, ...]:
    """Names or objects, each once: those of one text between its commas, those of a sequence, or the one that was given."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    elif hasattr(value, "name") or not isinstance(value, Iterable):
        value = [value]
    return tuple({getattr(each, "name", each): each for each in value}.values())


def _as_seeds(value: Any, kind: Any, option: str) -> tuple[int, ...]:
    """ "6" or 6: 0 to 5; "0,1,5" or a sequence: these; "21-23": 21, 22, 23; a trailing comma makes a list of one."""
    seeds = _parsed_seeds(value, option) if isinstance(value, str | Integral) else _listed_seeds(value, option)
    if not seeds:
        raise UserError(f"{option} {value}: no seeds named; give a count of at least 1, or a list such as 0,1,5 or 21-23")
    if len(set(seeds)) != len(seeds) or min(seeds) < 0:
        raise UserError(f"{option} {', '.join(map(str, seeds))}: each seed must be named once and be 0 or more")
    if len(seeds) > MOST_SEEDS:
        raise UserError(f"{option} {value}: more than {MOST_SEEDS:,} seeds")
    return tuple(seeds)


def _listed_seeds(value: Any, option: str) -> list[int]:
    if not isinstance(value, Iterable):
        raise UserError(f"{option} {value}: expected a count (6), a list (0,1,5) or a range (21-23)")
    return [converted(each, int, option) for each in value]


def _parsed_seeds(value: Any, option: str) -> Sequence[int]:
    text = str(value)
    try:
        if "," not in text and "-" not in text:
            if (count := int(text)) < 1:
                raise UserError(f"{option} {text}: ask for at least 1 seed")
            return range(count)
        seeds: list[int] = []
        for part in filter(None, (each.strip() for each in text.split(","))):
            first, dash, last = part.partition("-")
            if dash and int(last) - int(first) >= MOST_SEEDS:
                raise UserError(f"{option} {text}: more than {MOST_SEEDS:,} seeds")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise UserError(f"{option} {text}: expected a count (6), a list (0,1,5) or a range (21-23)") from None
    return seeds


def seeds_in_option(seeds: Sequence[int]) -> str:
    """Seeds as `--seeds` takes them: "0-19", or a list, of one with a comma at its end, since a number alone is a count."""
    if len(seeds) > 1 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}-{seeds[-1]}"
    return ",".join(map(str, seeds)) + "," * (len(seeds) == 1)


def _as_per_cell(value: Any, kind: Any, option: str) -> Any:
    """A value for all cells, or values by task, algorithm or both; written "1000000,bc=500000", where "*" are all others."""
    kind = next(each for each in get_args(kind) if get_origin(each) is Annotated)
    if isinstance(value, str) and "=" in value:
        parts = [part.rpartition("=") for part in value.split(",") if part.strip()]
        value = {name.strip() or "*": text.strip() for name, _, text in parts}
        if len(value) < len(parts):
            raise UserError(f"{option} {', '.join(value)}: each may be named once")
    if isinstance(value, Mapping):
        return {name: converted(each, kind, f"{option} of {name}") for name, each in value.items()}
    return None if value is None else converted(value, kind, option)


def of_cell(value: Any, task: str, algorithm: str) -> Any:
    """What a field says of one cell: by "task:algorithm", else by task, by algorithm, or "*"; None where it says nothing."""
    if not isinstance(value, Mapping):
        return value
    return next((value[name] for name in (f"{task}:{algorithm}", task, algorithm, "*") if name in value), None)


def _as_settings(value: Any, kind: Any, option: str, of_grid: bool = False) -> tuple[Setting, ...]:
    """Settings from a mapping, from texts "key=value", as they are, or from a list of mappings, of which later ones win."""
    if isinstance(value, list) and value and all(isinstance(each, Mapping) for each in value):
        layers = [_as_settings(each, kind, option, of_grid) for each in value]
        return tuple(setting._replace(layer=number) for number, each in enumerate(layers) for setting in each)
    found = []
    for each in [value] if isinstance(value, str) else value.items() if isinstance(value, Mapping) else value:
        if isinstance(each, Setting):
            found.append(each)
        elif isinstance(each, str):
            name, equals, text = each.partition("=")
            if not equals or not name.strip():
                raise UserError(f"{option} {each}: expected algorithm.key=value, such as mopo.penalty_coefficient=5")
            found.append(Setting(name.strip(), text.strip(), of_grid))
        else:
            name, text = each
            found.append(Setting(name, text, of_grid))
    return tuple(found)


def _as_compile(value: Any, kind: Any, option: str) -> str:
    return converted({True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value, kind, option)


_CONVERTERS = {
    "tasks": _as_names,
    "algorithms": _as_names,
    "without": _as_names,
    "seeds": _as_seeds,
    "steps": _as_per_cell,
    "window": _as_per_cell,
    "rows": _as_per_cell,
    "data_digest": _as_per_cell,
    "evaluate_every": _as_per_cell,
    "settings": _as_settings,
    "task_set": _as_settings,
    "compile": _as_compile,
}


def read_grid(path: Path) -> dict[str, Any]:
    """The fields in a grid file. Raises UserError where it is no TOML, or has a key that no request has."""
    try:
        grid = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"--grid {path}: there is no such file; `mopo-bench run --print-grid > grid.toml` writes one") from None
    except (OSError, ValueError) as error:
        raise UserError(f"--grid {path} cannot be read ({' '.join(str(error).split())}): give a TOML file") from None
    for name in grid:
        if name not in _kinds():
            raise unknown(f"key of {path}", name, _kinds(), "mopo-bench run --print-grid")
    return grid


@cache
def suites() -> dict[str, dict[str, Any]]:
    """The grids that come with the package, by name."""
    return tomllib.loads((resources.files(__package__) / "suites.toml").read_text(encoding="utf-8"))


def get_suite(name: str) -> dict[str, Any]:
    """The fields of a suite's request. Raises UserError for a name that is none."""
    if name not in suites():
        raise unknown("suite", name, suites(), "mopo-bench list suites")
    return suites()[name]
