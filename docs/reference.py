"""The pages of commands and of public names, as Markdown, from the code; `fill.py` puts them into their pages."""

import inspect
import re
from dataclasses import is_dataclass
from enum import Enum
from typing import Any, get_args

import mopo_bench
import typer
from mopo_bench.harness.cli.app import app


def commands() -> str:
    """Every command with what it says of itself, its arguments and options."""
    root = typer.main.get_command(app)
    return "\n\n".join([_prose(root.help), _options(root), *_command("mopo-bench", root)])


def _command(name: str, command: Any) -> list[str]:
    made = []
    for child in getattr(command, "commands", {}).values():
        whole = f"{name} {child.name}"
        if hasattr(child, "commands"):
            made += _command(whole, child)
            continue
        arguments = " ".join(_shown(each) for each in child.params if not _is_option(each))
        made += [f"## {whole}", f"`{' '.join(f'{whole} [OPTIONS] {arguments}'.split())}`", _prose(child.help), _options(child)]
    return made


def _is_option(parameter: Any) -> bool:
    return parameter.opts[0].startswith("-")


def _shown(argument: Any) -> str:
    """An argument in the line of use: its choices, if it has any, else its name."""
    name = "|".join(_choices(argument)) or argument.name.upper()
    name += "..." * (argument.nargs == -1)
    return name if argument.required else f"[{name}]"


def _choices(parameter: Any) -> list[str]:
    """The words that an argument or option may be."""
    kind = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    kinds = [each for each in (kind, *get_args(kind)) if inspect.isclass(each) and issubclass(each, Enum)]
    if kinds:
        return [each.value for each in kinds[0]]
    return list(getattr(getattr(parameter, "type", None), "choices", ()))


def _prose(text: str) -> str:
    """A docstring with its example as code."""
    paragraphs = [" ".join(each.split()) for each in inspect.cleandoc(text).split("\n\n")]
    return "\n\n".join(re.sub(r"^Example: (.*)$", r"Example: `\1`", each) for each in paragraphs)


def _options(command: Any) -> str:
    """A table with a row for each option and each argument that says something."""
    rows = []
    for each in command.params:
        if not (words := getattr(each, "help", None)) or getattr(each, "hidden", False):
            continue
        names = [*each.opts, *each.secondary_opts] if _is_option(each) else [each.name.upper()]
        choices = ", ".join(_choices(each))
        default = each.default if getattr(each, "show_default", True) else None
        if isinstance(default, list):
            default = ", ".join(map(str, default))
        shown = "" if default in (None, False, (), "") or callable(default) else f"`{getattr(default, 'value', default)}`"
        rows.append([", ".join(f"`{name}`" for name in names), " ".join(words.split()), choices, shown])
    if not rows:
        return ""
    lines = [["option", "meaning", "one of", "default"], ["---"] * 4, *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def reference() -> str:
    """Every name of `mopo_bench`, the parts of a learner, and `mopo_bench.testing`'s checks: signatures and docstrings."""
    made = ["## mopo_bench"]
    made += [part for name in sorted(mopo_bench.__all__) for part in _entry(name, getattr(mopo_bench, name))]
    from mopo_bench import testing
    from mopo_bench.algorithms.learning import networks, replay

    made += ["## mopo_bench.algorithms.learning.replay", *_entry("Batch", replay.Batch)]
    made += ["## mopo_bench.algorithms.learning.networks", _text(networks.__doc__)]
    parts = [each for each in vars(networks).values() if inspect.isclass(each) and issubclass(each, networks.Network)]
    made += [part for each in parts for part in _entry(each.__name__, each)]
    made += ["## mopo_bench.testing", _text(testing.__doc__)]
    checks = {name: each for name, each in vars(testing).items() if name.startswith("check_") and callable(each)}
    made += [part for name, each in sorted(checks.items()) for part in _entry(name, each)]
    return "\n\n".join(filter(None, made))


def _entry(name: str, thing: Any) -> list[str]:
    if inspect.isclass(thing) and (issubclass(thing, Exception) or not is_dataclass(thing)):
        signature = ""
    else:
        signature = re.sub(r"mopo_bench\.[\w.]+\.", "", str(inspect.signature(thing)))
        signature = re.sub(r"<(?:function )?([\w.]+)(?: object)? at 0x[0-9a-f]+>", r"\1", signature)  # another at each start
    made = [f"### {name}"]
    if signature:
        made.append(f"```text\n{_folded(name + signature)}\n```")
    made.append(_text(thing.__doc__))
    if inspect.isclass(thing):
        functions = [
            (each, getattr(value, "__func__", value)) for each, value in vars(thing).items() if not each.startswith("_")
        ]
        own = [(each, value) for each, value in functions if inspect.isfunction(value)]
        made += [f"**{each}**{_bare(value)}: {_text(value.__doc__)}" for each, value in own if value.__doc__]
    return made


def _bare(function: Any) -> str:
    names = [name for name in inspect.signature(function).parameters if name not in ("self", "cls")]
    return f"`({', '.join(names)})`"


def _folded(signature: str) -> str:
    """A signature in one line where it is short, else a parameter a line."""
    if len(signature) <= 100:
        return signature
    head, _, rest = signature.partition("(")
    inner, _, tail = rest.rpartition(")")
    parts, depth, part = [], 0, ""
    for character in inner:
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts, part = [*parts, part.strip()], ""
        else:
            part += character
    return "\n".join([f"{head}(", *(f"    {each}," for each in [*parts, part.strip()] if each), f"){tail}"])


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: what is indented in it is code."""
    lines, made, inside = inspect.cleandoc(docstring or "").splitlines(), [], False
    for line in lines:
        code = line.startswith("    ")
        if code and not inside and made and made[-1].strip():
            made.append(line.strip())  # goes on with the paragraph above
            continue
        inside = code or (inside and not line.strip())
        made.append(line)
    return "\n".join(made)
