"""What a learner holds beside its networks, or an experience in all: saved if it changes, refused if it cannot be saved.

Tensors, arrays, numbers, words, generators of random numbers, and lists, tuples and dicts of them are known. What is as `build`
made it is not saved, since `build` makes it again; what has changed once is saved from then on.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from functools import partial
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...common.errors import UserError
from ...tasks.data.dataset import OfflineDataset
from ...tasks.task import Rules
from .networks import Initialiser, Network
from .optimisation import Adam
from .stage import Stage

Saved = tuple[Any, ...]  # a kind, and what is kept of a value of that kind

PLAIN = (bool, int, float, complex, str, bytes, type(None))
SMALL_ENOUGH = 16 << 20  # bytes, of which a copy is kept
VALUES = (Enum, PurePath, torch.dtype, torch.device, np.dtype, range, slice)
OBJECTS = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, partial, type, Stage, Rules, OfflineDataset)
ADVICE = "keep it as tensors or in a Network, or define `state` and `load_states` to save it"


class Held:
    """The attributes of `owner`, a learner or an experience of `seeds` seeds, as they were built and as they are.

    derived: names of attributes that are made again in another way. in_place: names of large tensors of which only the place is
    compared. networks: whether weights and moments of networks are saved here, too: an experience has no other state.
    """

    def __init__(self, owner: Any, derived: frozenset[str], in_place: frozenset[str] = frozenset(), *, networks: bool = False):
        self.owner, self.derived, self.in_place, self.networks = owner, derived, in_place, networks
        self.seeds = len(owner.seeds)
        self.lenient = saves_itself(type(owner))
        self.changed: set[str] = set()
        self.built = {name: self._mark(name, value) for name, value in self._values()}
        self.first = {  # by seed, what `build` made, for states that do not have it since it had not changed
            name: [self._encoded(name, value, index) for index in range(self.seeds)]
            for name, value in self._values()
            if name not in in_place and size_of(value) <= SMALL_ENOUGH
        }

    def state(self, index: int) -> dict[str, Saved]:
        """Of seed number `index`: what has changed since it was built, by name. UserError for a kind that is not known."""
        for name, value in self._values():
            if name in self.changed or (mark := self._mark(name, value)) == self.built.get(name):
                continue
            if isinstance(mark, tuple) and mark[0] == "fixed" and (self.lenient or name not in self.built):
                self.built[name] = mark
            elif isinstance(mark, tuple) and mark[0] == "fixed":
                raise UserError(f"{self._where(name)} is another object than `build` made, and cannot be saved: {ADVICE}")
            else:
                self.changed.add(name)
        return {name: self._encoded(name, value, index) for name, value in self._values() if name in self.changed}

    def load_states(self, states: Sequence[Mapping[str, Saved]]) -> None:
        """Takes one state per seed, in order. UserError where seeds of different groups do not fit together."""
        present = dict(self._values())
        for name in sorted(self.changed.union(*states)):
            own = present.get(name)
            each = [state[name] if name in state else self._first(name, own, index) for index, state in enumerate(states)]
            *path, attribute = name.split(".")
            holder = self.owner
            for part in path:
                holder = getattr(holder, part)
            with torch.no_grad():
                value = joined(each, own, self._where(name), self.owner.device)
            if value is not own:
                setattr(holder, attribute, value)
            self.changed.add(name)

    def _values(self) -> Iterator[tuple[str, Any]]:
        """Every attribute by its dotted name; of a network and its optimiser those that no other state holds."""
        elsewhere = () if self.networks else ("weights",)
        counted = () if self.networks else ("first", "second", "count")
        for name, value in vars(self.owner).items():
            if name in self.derived:
                continue
            if isinstance(value, Network):
                for inner, each in vars(value).items():
                    if inner == "optimiser" and isinstance(each, Adam):
                        yield from ((f"{name}.optimiser.{key}", part) for key, part in vars(each).items() if key not in counted)
                    elif inner not in ("source", *elsewhere):  # `build` says again which network a target follows
                        yield f"{name}.{inner}", each
            else:
                yield name, value

    def _where(self, name: str) -> str:
        return f"{type(self.owner).__name__}.{name}"

    def _mark(self, name: str, value: Any) -> object:
        """What tells a value from the one that was built."""
        if name in self.in_place and isinstance(value, Tensor):
            return fingerprint(("", value.data_ptr(), value.shape, value._version))
        mark = self._encoded(name, value)
        return mark if mark[0] == "fixed" else fingerprint(mark)

    def _first(self, name: str, value: Any, index: int) -> Saved:
        return self.first[name][index] if name in self.first else self._encoded(name, value, index)

    def _encoded(self, name: str, value: Any, index: int | None = None) -> Saved:
        if any(value is stage for stage in self.owner.fitted.values()):
            return ("fixed", id(value))
        try:
            return encoded(value, self._where(name), self.seeds, index)
        except UserError:
            if self.lenient:
                return ("fixed", id(value))
            raise


def saves_itself(part: type) -> bool:
    """Whether a class from outside this package has `state` and `load_states` of its own, and so answers for what it holds."""

    def outside(name: str) -> bool:
        definer = next(base for base in part.__mro__ if name in vars(base))
        return definer.__module__.partition(".")[0] != __name__.partition(".")[0]

    return outside("state") and outside("load_states")


def encoded(value: Any, where: str, seeds: int, index: int | None = None) -> Saved:
    """A value as a checkpoint can hold it: its kind and what there is to keep, of all seeds or of seed number `index`.

    A tensor belongs to the seeds if its first size is their number; so does a list of that length, unless its tensors do.
    """
    if isinstance(value, VALUES):
        return ("fixed", repr(value))
    if isinstance(value, OBJECTS) or is_constant(value):
        return ("fixed", id(value))
    if isinstance(value, PLAIN):
        return ("plain", value)
    if isinstance(value, np.generic) and not isinstance(value, np.void | np.object_):
        return ("plain", value.item())
    if isinstance(value, Tensor):
        of_seeds = is_of_seeds(value, seeds)
        return ("tensor", of_seeds, (value[index : index + 1] if of_seeds and index is not None else value).detach().clone())
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        return ("array", encoded(torch.as_tensor(value.copy()), where, seeds, index))
    if isinstance(value, Initialiser):
        return ("initialiser", encoded(value.generators, where, seeds, index))
    if isinstance(value, torch.Generator):
        return ("generator", value.get_state())
    if isinstance(value, np.random.Generator):
        return ("numpy generator", encoded(value.bit_generator.state, where, 0))
    if isinstance(value, random.Random) and not isinstance(value, random.SystemRandom):
        return ("python generator", encoded(value.getstate(), where, 0))
    if isinstance(value, dict) and all(isinstance(key, PLAIN) for key in value) and type(value) is dict:
        return ("dict", {key: encoded(each, f"{where}[{key!r}]", seeds, index) for key, each in value.items()})
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        items = list(enumerate(value))
        of_seeds = len(value) == seeds and not any(holds_seeds(each, seeds) for each in value)
        if of_seeds and index is not None:
            items = [items[index]]
        return (kind, of_seeds, [encoded(each, f"{where}[{place}]", seeds, index) for place, each in items])
    what = f"{type(value).__module__.removeprefix('builtins').split('.')[0]}.{type(value).__name__}".lstrip(".")
    if isinstance(value, Network):
        raise UserError(f"{where} is a network in a list or a dict, where it is not saved: keep it as an attribute of its own")
    raise UserError(f"{where} is a {what}, which would be lost when a run resumes: {ADVICE}")


def is_constant(value: Any) -> bool:
    """Whether it is a frozen dataclass of nothing but numbers and words, as a Config is."""

    def plain(each: Any) -> bool:
        return all(map(plain, each)) if isinstance(each, tuple) else isinstance(each, (*PLAIN, *VALUES))

    parameters = getattr(value, "__dataclass_params__", None)
    return parameters is not None and parameters.frozen and all(map(plain, vars(value).values()))


def is_of_seeds(value: Tensor, seeds: int) -> bool:
    return value.dim() > 0 and value.shape[0] == seeds


def size_of(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, Tensor | np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 0


def holds_seeds(value: Any, seeds: int) -> bool:
    """Whether a value holds a tensor of all seeds."""
    if isinstance(value, Tensor | np.ndarray):
        return value.ndim > 0 and value.shape[0] == seeds
    if isinstance(value, list | tuple):
        return any(holds_seeds(each, seeds) for each in value)
    return isinstance(value, dict) and any(holds_seeds(each, seeds) for each in value.values())


def joined(each: Sequence[Saved], own: Any, where: str, device: torch.device) -> Any:
    """The value of a group from what was saved of its seeds: into the tensors and generators of `own`, where it has them."""
    first, *others = each
    kind, misfit = first[0], UserError(f"{where} of these seeds does not fit into one group: train them apart, with --group 1")
    if any(other[0] != kind for other in others):
        raise misfit
    if kind == "tensor":
        return joined_tensors(each, own, misfit, device)
    if kind == "array":
        own_tensor = torch.as_tensor(own) if isinstance(own, np.ndarray) else None
        value = joined([part[1] for part in each], own_tensor, where, torch.device("cpu"))
        return own if value is own_tensor else value.numpy()
    if kind in ("list", "tuple"):
        return joined_items(each, own, where, misfit, device)
    if kind == "fixed":
        return own
    if kind == "dict":
        known = own if isinstance(own, dict) else {}
        if any(other[1].keys() != first[1].keys() for other in others):
            raise misfit
        return {key: joined([part[1][key] for part in each], known.get(key), f"{where}[{key!r}]", device) for key in first[1]}
    if kind == "initialiser":
        joined([part[1] for part in each], own.generators, where, device)
        return own
    if any(fingerprint(other) != fingerprint(first) for other in others):
        raise misfit
    if kind == "plain":
        return first[1]
    if own is None:
        raise UserError(f"{where} is not made by `build`: make every generator there, so that a run can resume")
    if kind == "generator":
        own.set_state(first[1])
    elif kind == "numpy generator":
        own.bit_generator.state = joined([first[1]], None, where, device)
    else:
        own.setstate(joined([first[1]], None, where, device))
    return own


def joined_tensors(each: Sequence[Saved], own: Any, misfit: UserError, device: torch.device) -> Tensor:
    parts = [part[2] for part in each]
    shared = all(fingerprint(("", part)) == fingerprint(("", parts[0])) for part in parts)
    stacked = torch.cat(parts) if all(part[1] for part in each) else None
    shape = own.shape if isinstance(own, Tensor) else None
    if stacked is not None and shape in (None, stacked.shape):
        value = stacked
    elif shared and shape in (None, parts[0].shape):
        value = parts[0]
    else:
        raise misfit
    if isinstance(own, Tensor) and own.dtype != value.dtype:
        raise misfit
    return own.copy_(value) if isinstance(own, Tensor) else value.to(device)


def joined_items(each: Sequence[Saved], own: Any, where: str, misfit: UserError, device: torch.device) -> Any:
    kind, of_seeds, _ = each[0]
    known = list(own) if isinstance(own, list | tuple) else []
    if of_seeds and all(part[1] and len(part[2]) == 1 for part in each) and len(known) in (0, len(each)):
        columns = [[part[2][0]] for part in each]  # one of each seed
    elif len({len(part[2]) for part in each}) == 1:
        columns = [list(column) for column in zip(*(part[2] for part in each), strict=True)]
    else:
        raise misfit
    known += [None] * (len(columns) - len(known))
    values = [joined(column, old, where, device) for column, old in zip(columns, known, strict=False)]
    if kind == "list":
        return values
    return type(own)(*values) if hasattr(own, "_fields") else tuple(values)


def fingerprint(value: Any) -> bytes:
    """A digest of an encoded value."""
    digest = hashlib.blake2b(digest_size=16)

    def add(each: Any) -> None:
        if isinstance(each, Tensor):
            digest.update(f"{each.dtype}{tuple(each.shape)}".encode())
            digest.update(each.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data if each.numel() else b"")
        elif isinstance(each, dict):
            for key, inner in each.items():
                digest.update(f"{key!r}:".encode())
                add(inner)
        elif isinstance(each, list | tuple):
            digest.update(f"{len(each)}(".encode())
            for inner in each:
                add(inner)
        else:
            digest.update(f"{each!r};".encode())

    add(value)
    return digest.digest()
