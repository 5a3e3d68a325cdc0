"""Digests of code from outside this package, so that numbers of edited code are never taken for those of the code before."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

OURS = __name__.partition(".")[0]
_INSTALLED = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")]


def version_or_source(part: Any) -> str:
    """The `version` that a class or function gives itself, else its `source_digest`."""
    return str(vars(part)["version"]) if "version" in vars(part) else source_digest(part)


def source_digest(part: Any) -> str:
    """Eight hex digits of the source of a class or function; empty for one of this package, and where it cannot be read.

    Counted is, beside its own source, what that names of its module and of others of the same package or folder: functions,
    classes and constants, and what these name. Comments and docstrings are not. The digest is kept with the class or function,
    which a worker process may get without its source.
    """
    if str(part.__module__).partition(".")[0] in (OURS, "builtins", "abc", "typing"):
        return ""
    if "_source_digest" not in vars(part):  # of its own, not of a class that it is made of
        digest = _digest(part)
        try:
            part._source_digest = digest
        except (AttributeError, TypeError):  # one written in C
            return digest
    return vars(part)["_source_digest"]


def _digest(part: Any) -> str:
    module, found = sys.modules.get(part.__module__), dict[tuple[str, str], str]()
    try:
        own = ast.parse(textwrap.dedent(inspect.getsource(part)))
    except (OSError, TypeError, SyntaxError):
        return ""
    found["", part.__qualname__] = _dumped(own)
    if module is not None:
        for name in _named(own):
            _follow(module, name, found)
    # a script is called __main__ where it is run, and otherwise where it is imported
    counted = {("" if place == part.__module__ else place, name): text for (place, name), text in found.items()}
    return hashlib.sha256(repr(sorted(counted.items())).encode()).hexdigest()[:8]


def _follow(module: ModuleType, dotted: str, found: dict[tuple[str, str], str]) -> None:
    """Adds what a name means in a module, with all that this names, by module and name."""
    name, _, rest = dotted.partition(".")
    key = (module.__name__, name)
    for statement in _defining(module).get(name, ()):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            for other, attribute in _imported(module, statement, name, rest):
                if _belongs(other, module):
                    _follow(other, attribute, found)
        elif key not in found:
            found[key] = ""  # what names itself ends here
            found[key] = "".join(_dumped(each) for each in _defining(module)[name])
            for each in _named(statement):
                _follow(module, each, found)


def _imported(
    module: ModuleType, statement: ast.Import | ast.ImportFrom, name: str, rest: str
) -> Iterator[tuple[ModuleType, str]]:
    """The module, and the name in it, that an imported name stands for; `rest` is what is asked of it, as "f" of "losses.f"."""
    for alias in statement.names:
        if name != (alias.asname or alias.name.partition(".")[0]):
            continue
        if isinstance(statement, ast.Import):
            place = alias.name if alias.asname else name
            while (inner := f"{place}.{rest.partition('.')[0]}") in sys.modules and not alias.asname:
                place, rest = inner, rest.partition(".")[2]
        else:
            base = "." * statement.level + (statement.module or "")
            base = importlib.util.resolve_name(base, module.__package__ or "") if statement.level else base
            place, rest = (f"{base}.{alias.name}", rest) if f"{base}.{alias.name}" in sys.modules else (base, alias.name)
        if place in sys.modules and rest:
            yield sys.modules[place], rest


def _belongs(other: ModuleType, module: ModuleType) -> bool:
    """Whether a module is of the same package as another, or of no installed one: what may be edited along with it."""
    top = other.__name__.partition(".")[0]
    path = Path(getattr(other, "__file__", None) or sysconfig.get_path("stdlib")).resolve()
    return top != OURS and (top == module.__name__.partition(".")[0] or not any(map(path.is_relative_to, _INSTALLED)))


def _defining(module: ModuleType) -> dict[str, list[ast.stmt]]:
    """The statements of a module, outside of functions and classes, by the names that they bind; none without its source."""
    try:
        body = ast.parse(inspect.getsource(module)).body
    except (OSError, TypeError, SyntaxError):
        return {}
    found: dict[str, list[ast.stmt]] = {}
    while body:
        statement = body.pop()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound = [statement.name]
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            bound = [alias.asname or alias.name.partition(".")[0] for alias in statement.names]
        else:
            body += [each for each in ast.iter_child_nodes(statement) if isinstance(each, ast.stmt)]
            inner = any(isinstance(each, ast.stmt) for each in ast.iter_child_nodes(statement))
            names = [] if inner else list(ast.walk(statement))
            bound = [each.id for each in names if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)]
        for name in bound:
            found.setdefault(name, []).append(statement)
    return found


def _named(tree: ast.AST) -> set[str]:
    """The names that a tree reads: "f", and "losses.f" for an attribute of a name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts = [node.attr]
            inner: ast.expr = node.value
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name):
                found.add(".".join([inner.id, *reversed(parts)]))
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


def _dumped(tree: ast.AST) -> str:
    """The tree as text, without docstrings; comments it has none."""
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
