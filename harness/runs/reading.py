"""What is believed of a file in a results folder: that it parses, has the right types, agrees with itself and with its path."""

from __future__ import annotations

import glob
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...common.errors import UserError

ENDED_OR_NOT = ("running", "failed", "diverged", "done")  # the states that a record may say
LARGEST = 2**53  # of counts: beyond it floats skip numbers
FARTHEST = 2.0**848  # from 0 that a number may lie: sums of such numbers are finite
NUMBERS = frozenset((int, float))
SHOWN = 300  # characters of a text from a file that are shown


class Damaged(UserError):
    """A file that is not to be believed, and why."""


def printable(text: object, most: int = SHOWN) -> str:
    """A text from a file in one line for any terminal: no control characters, and no longer than `most`."""
    line = " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def cleaned(value: Any) -> Any:
    """A value from JSON with every text in it printable; a traceback keeps its lines, which `ledger.reason` reads."""
    if isinstance(value, dict):
        return {printable(key): each if key == "traceback" else cleaned(each) for key, each in value.items()}
    if isinstance(value, list):
        return [cleaned(each) for each in value]
    return printable(value, 100_000) if isinstance(value, str) and not value.isprintable() else value


def parsed(path: Path) -> tuple[dict[str, Any], bool]:
    """The object in a JSON file, and whether every text in it is printable for sure. Raises Damaged."""
    try:
        if not path.is_file():
            raise OSError("it is no file")
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
    except PermissionError:
        raise Damaged(f"{path.name} may not be read; check its permissions") from None
    except (OSError, ValueError) as error:
        raise Damaged(f"{path.name} cannot be read ({printable(error)})") from None
    except RecursionError:
        raise Damaged(f"{path.name} cannot be read (nested too deeply)") from None
    if not isinstance(value, dict):
        raise Damaged(f"{path.name} holds no object")
    # JSON itself allows no control character but by an escape, nor does ASCII have others that are not printable
    return value, "\\" not in text and text.isascii() and "\x7f" not in text


def archive_damage(path: Path) -> str | None:
    """Why a file of tensors is not to be believed, as far as that is told without torch: by its checksums; None where it is."""
    try:
        with zipfile.ZipFile(path) as archive:
            first = archive.testzip()
    except FileNotFoundError as error:  # one that was at work, and is done since
        return f"it cannot be read ({printable(error)})" if path.is_symlink() else None
    except (OSError, ValueError, NotImplementedError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        return f"it cannot be read ({printable(error)})"
    return None if first is None else f"it is not as it was written: the checksum of {printable(first, 60)} differs"


def is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= LARGEST


def is_number(value: Any) -> bool:
    return type(value) in NUMBERS and -FARTHEST < value < FARTHEST


def is_text(value: Any) -> bool:
    return isinstance(value, str)


def is_object(value: Any) -> bool:
    return isinstance(value, dict)


def or_none(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def object_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(holds, value.values()))


def list_of(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(holds, value))


def are_numbers(value: Any) -> bool:
    """Whether it is a list of at least one number, as `is_number` of each would say."""
    if not isinstance(value, list) or not value or not NUMBERS.issuperset(map(type, value)):
        return False
    return min(value) > -FARTHEST and max(value) < FARTHEST and not math.isnan(sum(value))


def is_object_of_numbers(value: Any) -> bool:
    """Whether it is an object of numbers, or of nothing in their place."""
    return isinstance(value, dict) and are_numbers([0, *(each for each in value.values() if each is not None)])


def is_object_of_measures(value: Any) -> bool:
    """Whether it is an object in which every number, also in lists, is one as `is_number` says; texts are let be."""
    return isinstance(value, dict) and _are_measures(value.values())


def _are_measures(values: Iterable[Any]) -> bool:
    try:
        return math.hypot(*values) < FARTHEST  # the fastest way to say that each is
    except (TypeError, OverflowError):  # not numbers alone, or one too long for a float
        return all(
            _are_measures(each) if isinstance(each, list) else type(each) not in NUMBERS or is_number(each) for each in values
        )


Fields = Mapping[str, Callable[[Any], bool]]

CELL: Fields = {
    "task": is_text,
    "algorithm": is_text,
    "config": is_object,
    "data": is_object,
    "versions": object_of(lambda value: is_text(value) or is_number(value)),
    "package": is_text,
}
CELL_MAY: Fields = {
    "identity": is_text,
    "overrides": is_object,
    "settings": is_object,
    "rules": is_object,
    "about": is_object,
    "dataset": or_none(is_object),
    "imported": lambda value: isinstance(value, bool),
}
DATA: Fields = {"label": is_text, "digest": is_text, "source": is_text, "window": is_text, "rows": is_count}
DATA_MAY: Fields = {
    "return_mean": or_none(is_number),
    "return_max": or_none(is_number),
    "return_zero": is_number,
    "return_random": is_number,
    "episodes": is_count,
    "critic_rows": is_count,
    "dynamics_rows": is_count,
    "from": or_none(is_text),
    "whole": is_object,
    "provenance": is_object,
}
ABOUT_MAY: Fields = {
    "title": or_none(is_text),
    "model_free": or_none(lambda value: isinstance(value, bool)),
    "needs_simulator": lambda value: isinstance(value, bool),
    "stages": object_of(is_text),
    "warmup_steps": is_count,
    "worse": object_of(is_text),
}
RECORD: Fields = {
    "seed": is_count,
    "state": lambda value: value in ENDED_OR_NOT,
    "steps": is_count,
    "evaluations": list_of(is_object),
}
RECORD_MAY: Fields = {
    "segments": list_of(is_object),
    "stages": object_of(is_text),
    "stage_records": object_of(is_object),
    "warnings": object_of(or_none(is_text)),
    "traceback": or_none(is_text),
    "seconds": or_none(is_number),
    "seconds_at": object_of(is_number),
    "diverged_at": or_none(is_count),
    "diverged_by": or_none(is_text),
    "imported": object_of(is_text),
}
EVALUATION: Fields = {
    "step": is_count,
    "return_mean": is_number,
    "returns": are_numbers,
}
EVALUATION_MAY: Fields = {
    "return_std": or_none(is_number),
    "metrics": is_object_of_measures,
    "vitals": is_object_of_measures,
    "value": or_none(is_object_of_numbers),
}
PLANNED: Fields = {"task": is_text, "algorithm": is_text, "seed": is_count, "steps": is_count}
PLANNED_MAY: Fields = {"overrides": is_object, "data": is_text, "data_rows": is_count, "window": is_text}


def require(where: str, value: Mapping[str, Any], must: Fields, may: Fields) -> None:
    """Raises Damaged where a field that must be there is missing, or one has a value that it cannot have."""
    if not must.keys() <= value.keys():
        raise Damaged(f"{where} has no {', '.join(sorted(must.keys() - value.keys()))}")
    for fields in (must, may):
        for name, holds in fields.items():
            if name in value and not holds(value[name]):
                raise Damaged(f"{where}: {name} cannot be {printable(repr(value[name]), 60)}")


def checked_cell(
    cell: dict[str, Any], task: str, algorithm: str, identity: str, hashed: Callable[[Any], str]
) -> dict[str, Any]:
    """What `cell.json` says, if it is that of its folder. Raises Damaged.

    hashed: makes an identity; where the cell holds its settings, as older ones do not, the identity is made anew from them.
    """
    require("cell.json", cell, CELL, CELL_MAY)
    require("cell.json: data", cell["data"], DATA, DATA_MAY)
    require("cell.json: about", cell.get("about", {}), {}, ABOUT_MAY)
    require("cell.json: rules", cell.get("rules", {}), {}, {"parameters": is_object})
    require("cell.json: data: whole", cell["data"].get("whole", {}), {}, {**DATA, **DATA_MAY})
    for name, own in (("task", task), ("algorithm", algorithm), ("identity", identity)):
        if cell.get(name, own) != own:
            raise Damaged(f"cell.json is that of another {name}, {printable(cell[name], 60)}")
    if "settings" in cell:
        require("cell.json", cell, {"rules": is_object, "versions": is_object}, {})
        said = {
            "digest": cell["data"]["digest"],
            "algorithm": algorithm,
            "versions": cell["versions"],
            "settings": cell["settings"],
        }
        if hashed({**cell["rules"], **said}) != identity:
            raise Damaged("cell.json: its rules, digest, versions and settings are not those of its identity")
        if changed := [name for name, value in cell["settings"].items() if cell["config"].get(name) != value]:
            raise Damaged(f"cell.json: config and settings differ in {printable(', '.join(changed), 60)}")
    return cell


def checked_record(record: dict[str, Any], seed: int) -> dict[str, Any]:
    """What `record.json` says, if it is that of its seed and agrees with itself. Raises Damaged."""
    require("record.json", record, RECORD, RECORD_MAY)
    if record["seed"] != seed:
        raise Damaged(f"record.json is that of seed {record['seed']}")
    for part in record.get("segments", ()):
        require("record.json: segments", part, {}, {"versions": object_of(or_none(is_text))})
    before = -1
    for row in record["evaluations"]:
        require("record.json: evaluations", row, EVALUATION, EVALUATION_MAY)
        if row["step"] <= before:
            raise Damaged(f"record.json: the evaluation at step {row['step']:,} follows that at step {before:,}")
        before, returns = row["step"], row["returns"]
        mean, size = math.fsum(returns) / len(returns), max(map(abs, returns))
        if abs(row["return_mean"] - mean) > 1e-6 * max(size, 1e-12):
            raise Damaged(
                f"record.json: return_mean at step {before:,} is {row['return_mean']:.6g}, and its returns give {mean:.6g}"
            )
        value = row.get("value") or {}
        if value.get("highest") is not None and value.get("mean") is None:
            raise Damaged(f"record.json: value at step {before:,} has no mean")
    if before > record["steps"] or (record["state"] == "done" and before != record["steps"]):
        last = f"its last evaluation is at step {before:,}" if record["evaluations"] else "there is no evaluation"
        raise Damaged(f"record.json says {record['state']} at step {record['steps']:,}, but {last}")
    return record


def checked_plan(plan: dict[str, Any]) -> dict[str, Any]:
    """What `plan.json` says. Raises Damaged."""
    for key, entry in plan.items():
        where = f"plan.json: {printable(key, 80)}"
        if not isinstance(entry, dict):
            raise Damaged(f"{where} is no object")
        require(where, entry, PLANNED, PLANNED_MAY)
        parts = key.split("/")
        if len(parts) != 4 or [parts[0], parts[1], parts[3]] != [entry["task"], entry["algorithm"], f"seed-{entry['seed']}"]:
            raise Damaged(f"{where} is that of another run")
    return plan


def seed_of(name: str) -> int | None:
    """The seed of a folder's name, "seed-12"; None of any other way to write it."""
    number = name.removeprefix("seed-")
    whole = number.isascii() and number.isdecimal() and len(number) <= 16
    return int(number) if whole and name == f"seed-{int(number)}" else None


def was_put_aside(path: Path) -> bool:
    """Whether a damaged file of this name is kept beside it."""
    return next(path.parent.glob(f"{glob.escape(path.name)}.damaged*"), None) is not None


def put_aside(path: Path) -> Path:
    """Renames a damaged file, so that it is kept and in nobody's way; gives its new name.

    Raises UserError for one that may not be read, which need not be damaged.
    """
    if path.exists() and not os.access(path, os.R_OK):
        raise UserError(f"{path} may not be read; check its permissions")
    names = (path.with_name(f"{path.name}.damaged{number}") for number in ("", *(f"-{count}" for count in range(2, 10_000))))
    place = next(each for each in names if not each.exists() and not each.is_symlink())
    return path.rename(place)
