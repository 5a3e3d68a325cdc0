"""Types of settings with their ranges, and how a written value becomes one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from .errors import UserError


@dataclass(frozen=True)
class Range:
    low: float
    high: float = math.inf
    above: bool = False  # low itself is not allowed
    below: bool = False  # nor high

    def holds(self, value: float) -> bool:
        above = value > self.low if self.above else value >= self.low
        return above and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.high < math.inf:
            return f"{'above' if self.above else 'from'} {self.low:g} {'and below' if self.below else 'to'} {self.high:g}"
        return f"above {self.low:g}" if self.above else f"of at least {self.low:g}"


@dataclass(frozen=True)
class Increasing:
    def holds(self, values: tuple[float, ...]) -> bool:
        return all(before < after for before, after in itertools.pairwise(values))

    def __str__(self) -> str:
        return "in increasing order"


class Choice:
    """One of a few words: `Annotated[str, Choice("auto", "cpu", "cuda")]`."""

    def __init__(self, *words: str):
        self.words = words

    def holds(self, value: str) -> bool:
        return value in self.words

    def __str__(self) -> str:
        *others, last = self.words
        return f"{', '.join(others)} or {last}" if others else last


@dataclass(frozen=True)
class Hexadecimal:
    """The first digits of a hash, `shortest` at least and `longest` at most."""

    shortest: int
    longest: int

    def holds(self, value: str) -> bool:
        return self.shortest <= len(value) <= self.longest and set(value) <= set("0123456789abcdef")

    def __str__(self) -> str:
        return f"of {self.shortest} to {self.longest} digits 0 to 9 and a to f"


Count = Annotated[int, Range(1)]
StepCount = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
ProperFraction = Annotated[float, Range(0, 1, above=True, below=True)]  # neither none nor all
Interval = Annotated[tuple[float, float], Increasing()]


def converted(value: Any, kind: Any, where: str) -> Any:
    """`value`, perhaps written on a command line or in TOML, as the annotated type `kind` of its field; else UserError."""
    refusal = UserError(f"{where}={value!r}: expected {name_of(kind)}")
    if get_origin(kind) is Annotated:
        base, limits = get_args(kind)
        number = converted(value, base, where)
        if not limits.holds(number):
            raise refusal
        return number
    if get_origin(kind) in (Union, UnionType):
        if value is None or str(value).lower() == "none":
            return None
        return converted(value, next(option for option in get_args(kind) if option is not type(None)), where)
    if get_origin(kind) is tuple:
        return _converted_tuple(value, get_args(kind), where, refusal)
    if kind is bool:
        spelled = {"true": True, "false": False}
        if str(value).lower() not in spelled:
            raise refusal
        return spelled[str(value).lower()]
    try:
        number = int(float(value)) if kind is int and _is_power(value) else kind(value)
    except (TypeError, ValueError, OverflowError):
        raise refusal from None
    if kind in (int, float) and (isinstance(value, bool) or not math.isfinite(number)):
        raise refusal
    if kind is int and isinstance(value, float) and value != number:
        raise refusal
    return number


def _is_power(value: Any) -> bool:
    """Whether this is a whole number written with an exponent, such as 1e6 or 2.5e5."""
    return isinstance(value, str) and "e" in value.lower() and float(value).is_integer()


def takes_several(kind: Any) -> bool:
    """Whether a value of this type is itself a list, such as the sizes of layers."""
    if get_origin(kind) is Annotated or get_origin(kind) in (Union, UnionType):
        return any(takes_several(each) for each in get_args(kind))
    return get_origin(kind) is tuple


def _converted_tuple(value: Any, kinds: tuple[Any, ...], where: str, refusal: UserError) -> tuple[Any, ...]:
    items = value.strip("()[] ").split(",") if isinstance(value, str) else value
    if not isinstance(items, Iterable):
        raise refusal
    items = [item for item in items if not (isinstance(item, str) and not item.strip())]
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(items)
    if not items or len(items) != len(kinds):
        raise refusal
    return tuple(converted(item, kind, where) for item, kind in zip(items, kinds, strict=True))


def name_of(kind: Any) -> str:
    """A type in words: "a whole number of at least 1"."""
    if get_origin(kind) is Annotated:
        base, limits = get_args(kind)
        return str(limits) if isinstance(limits, Choice) else f"{name_of(base)} {limits}"
    if get_origin(kind) in (Union, UnionType):
        return " or ".join("none" if option is type(None) else name_of(option) for option in get_args(kind))
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        return (
            f"a list, each {name_of(kinds[0])}" if kinds[-1] is Ellipsis else f"{len(kinds)} values, each {name_of(kinds[0])}"
        )
    return {int: "a whole number", float: "a number", str: "a word", bool: "true or false"}.get(kind, str(kind))
