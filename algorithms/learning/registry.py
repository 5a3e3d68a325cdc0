"""The registered algorithms, and how a configuration is put together: defaults, then the task's settings, then the user's."""

from __future__ import annotations

import dataclasses
import inspect
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import Any, get_type_hints

from ...common.errors import ENTRY_POINT, UserError, in_words, unknown
from ...common.plugins import checked_name, load_plugins, origin_of
from ...common.settings import converted, takes_several
from ...common.source_digest import version_or_source
from ...common.trees import dotted
from .experience import Experience
from .learner import Learner
from .stage import Stage

Settings = Mapping[str, Any]


@cache
def types_of(part: type) -> dict[str, Any]:
    """The types of a Config's fields, by name."""
    return get_type_hints(part, include_extras=True)


@dataclass(frozen=True)
class Algorithm:
    """A learner and where its batches come from; `settings` are those in which it differs from their defaults.

    Its configuration is flat: the fields of the learner and of the experience by name, those of a stage as "stage.field".
    title: its printed name, by default the name. about: what it is, in one sentence.
    """

    name: str
    learner: type[Learner]
    experience: type[Experience] = Experience
    settings: Settings = field(default_factory=dict)
    origin: str = ""
    variant_of: str = ""  # the algorithm whose settings by task it takes, too
    title: str = ""
    about: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", self.title or self.name)
        self._check_part(self.learner, Learner, ("build", "update", "act"))
        self._check_part(self.experience, Experience, ())
        for stage in self.stages.values():
            self._check_part(stage, Stage, ("__init__", "fit"))
        settings, wanted = ({each.name for each in dataclasses.fields(kind.Config)} for kind in (self.learner, Learner))
        if missing := wanted - settings:
            raise UserError(f"{self.name}: {self.learner.__name__}.Config has no {', '.join(missing)}, as that of Learner has")

    def _check_part(self, part: Any, base: type, wanted: Sequence[str]) -> None:
        """UserError for a class that is not what the contract says."""
        what = f"{self.name}: {getattr(part, '__name__', part)}"
        if not (isinstance(part, type) and issubclass(part, base)):
            raise UserError(f"{what} is no {base.__name__}: make it a subclass of mopo_bench.{base.__name__}")
        if missing := [name for name in wanted if inspect.getattr_static(part, name) is vars(base)[name]]:
            raise UserError(f"{what} does not define {in_words(missing)}")
        config = getattr(part, "Config", None)
        if not (isinstance(config, type) and dataclasses.is_dataclass(config)) or (
            vars(config).get("__annotations__") and "__dataclass_fields__" not in vars(config)
        ):
            raise UserError(f"{what}.Config is no dataclass: write @dataclass(frozen=True) above it")
        without = [
            each.name
            for each in dataclasses.fields(config)
            if each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
        ]
        if without:
            raise UserError(f"{what}.Config has no default for {', '.join(without)}: give every setting one")

    @property
    def stages(self) -> dict[str, type[Stage]]:
        """Those of the learner and of the experience."""
        return {**self.learner.stages, **self.experience.stages}

    @property
    def model_free(self) -> bool:
        """No stage of it is a model of the environment."""
        return not any(stage.models_environment for stage in self.stages.values())

    def describe(self, config: Settings) -> dict[str, Any]:
        """What there is to say of it under a full configuration, JSON-able; `warmup_steps` belong to the learner."""
        return {
            "title": self.title,
            "about": self.about,
            "model_free": self.model_free,
            "needs_simulator": self.experience.needs_simulator(self.build_configs(config)["experience"]),
            "stages": {name: stage.title or name for name, stage in self.stages.items()},
            "warmup_steps": self.learner.warmup_steps(self.build_configs(config)["learner"]),
            "worse": self.worse,
        }

    @property
    def worse(self) -> dict[str, str]:
        """What its parts say of their metrics, those of a fit as "stage.metric"; see `Learner.worse`."""
        of_fits = {f"{name}.{metric}": side for name, stage in self.stages.items() for metric, side in stage.worse.items()}
        return {**self.learner.worse, **self.experience.worse, **of_fits}

    @property
    def parts(self) -> dict[str, type]:
        """Config classes by prefix: "" twice over (learner, experience), then each stage."""
        stages = {f"{name}.": stage.Config for name, stage in self.stages.items()}
        return {"learner": self.learner.Config, "experience": self.experience.Config, **stages}

    @property
    def versions(self) -> dict[str, str]:
        parts = {"learner": self.learner, "experience": self.experience, **self.stages}
        return {name: version_of(part) for name, part in parts.items()}

    def defaults(self) -> dict[str, Any]:
        """Every key with the default of its Config class, before `settings`."""
        return {key: getattr(part(), name) for key, (part, name) in self._fields().items()}

    def configure(self, *layers: Settings) -> dict[str, Any]:
        """The full configuration; later layers win. A key or a value that does not fit raises UserError."""
        fields, values = self._fields(), self.defaults()
        for layer in (self.settings, *layers):
            for key, value in layer.items():
                if key not in fields:
                    raise unknown(f"setting of {self.name}", key, fields, "mopo-bench list algorithms --json")
                part, name = fields[key]
                values[key] = converted(value, types_of(part)[name], f"{self.name}.{key}")
        self.build_configs(values)
        return values

    def build_configs(self, values: Settings) -> dict[str, Any]:
        """The Config objects by part ("learner", "experience", each stage's name) from a full configuration."""
        configs = {}
        for prefix, part in self.parts.items():
            stage = prefix if prefix.endswith(".") else ""
            chosen = {each.name: values[stage + each.name] for each in dataclasses.fields(part)}
            try:
                configs[prefix.removesuffix(".")] = part(**chosen)
            except ValueError as error:
                raise UserError(f"{self.name}: {error}") from None
        return configs

    def least_bytes(self, values: Settings) -> dict[str, int]:
        """What a full configuration needs of memory at the least, in bytes, by the settings that want it.

        Settings whose names end in "hidden" are the sizes of layers: each has weights, gradients and two moments of four bytes,
        and a batch passes through the learner's widest.
        """
        layers = {
            name: value
            for name, value in values.items()
            if name.endswith("hidden") and isinstance(value, tuple) and all(isinstance(each, int) for each in value)
        }
        needed = {
            f"{name}={','.join(map(str, sizes))}": 16 * sum(before * after for before, after in pairwise((1, *sizes, 1)))
            for name, sizes in layers.items()
        }
        widest = max((size for name, sizes in layers.items() if "." not in name for size in sizes), default=1)
        batch = self.build_configs(values)["learner"].batch_size
        return needed | {f"batch_size={batch} in layers of {widest:,}": 4 * batch * widest}

    def several(self, key: str, value: Any) -> list[Any]:
        """The values that a setting sweeps over ("0.5,1,2" or a list, if it takes one value itself), else `value` alone."""
        if key not in (fields := self._fields()):
            return [value]  # refused by `configure`
        part, name = fields[key]
        if takes_several(types_of(part)[name]) or not isinstance(value, str | list | tuple):
            return [value]
        return value.split(",") if isinstance(value, str) else list(value)

    def changed(self, values: Settings) -> dict[str, Any]:
        """The settings that differ from the Config defaults: what enters a run's identity."""
        defaults = self.defaults()
        return {key: value for key, value in values.items() if value != defaults[key]}

    def _fields(self) -> dict[str, tuple[type, str]]:
        fields: dict[str, tuple[type, str]] = {}
        for prefix, part in self.parts.items():
            stage = prefix if prefix.endswith(".") else ""
            for each in dataclasses.fields(part):
                if stage + each.name in fields:
                    raise TypeError(f"{self.name}: learner and experience both have a setting {each.name!r}")
                fields[stage + each.name] = (part, each.name)
        return fields


def version_of(part: type) -> str:
    """Versions down the line of inheritance, "2.1": a parent's numbers change its children's.

    For a class outside this package that gives no version of its own, a digest of its source stands in, so that numbers of
    edited code are never taken for those of the code before.
    """
    return ".".join(filter(None, map(version_or_source, part.__mro__)))


_ALGORITHMS: dict[str, Algorithm] = {}


def register_algorithm(
    name: str,
    learner: type[Learner],
    experience: type[Experience] = Experience,
    *,
    variant_of: str = "",
    title: str = "",
    about: str = "",
    replace: bool = False,
    **settings: Any,
) -> Algorithm:
    """Adds an algorithm under `name`; from then on every command knows it. `settings` differ from the Config defaults.

    variant_of: the algorithm whose settings by task, in `hyperparameters.toml`, are meant for this one, too.
    title: its printed name, by default `name`. about: what it is, in one sentence. replace: takes the place of another module's
    algorithm of this name. Raises UserError for a name that cannot be used.
    """
    origin = origin_of(sys._getframe(1).f_globals)
    checked_name("algorithm", name, {known: each.origin for known, each in _ALGORITHMS.items()}, origin, replace)
    algorithm = Algorithm(name, learner, experience, settings, origin, variant_of, title, about)
    algorithm.configure()
    _ALGORITHMS[name] = algorithm
    return algorithm


def all_algorithms() -> dict[str, Algorithm]:
    """Every registered algorithm by name, those of plug-ins and those registered by hand included."""
    load_plugins()
    return _ALGORITHMS


def get_algorithm(name: str) -> Algorithm:
    algorithms = all_algorithms()
    if name not in algorithms:
        raise unknown("algorithm", name, algorithms, "mopo-bench list algorithms", ENTRY_POINT)
    return algorithms[name]


@cache
def hyperparameters() -> dict[str, dict[str, Any]]:
    """`hyperparameters.toml`: by task, then by algorithm ("*": every algorithm that has the key)."""
    tables = tomllib.loads((resources.files(__package__.rpartition(".")[0]) / "hyperparameters.toml").read_text())
    return {task: tables.get(table.pop("like", None), {}) | table for task, table in tables.items()}


def task_settings(algorithm: Algorithm, task: str) -> dict[str, Any]:
    """What the task changes for this algorithm, from `hyperparameters.toml`.

    What it changes for all is meant for this package's algorithms and their variants: a stranger's setting of the same name may
    mean another thing, and keeps its default.
    """
    table, known = hyperparameters().get(task, {}), algorithm.defaults()
    own = algorithm.variant_of or algorithm.origin.partition(".")[0] in ("", __name__.partition(".")[0])
    shared = {key: value for key, value in flattened(table.get("*", {})).items() if key in known and own}
    return shared | flattened(table.get(algorithm.variant_of, {})) | flattened(table.get(algorithm.name, {}))


def flattened(table: Mapping[str, Any]) -> dict[str, Any]:
    """{"dynamics": {"hidden": [64]}} to {"dynamics.hidden": [64]}; "source" is prose."""
    return dotted(table, but="source")
