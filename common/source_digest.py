"""Digests of code from outside this package, so that numbers of edited code are never taken for those of the code before."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

OURS = __name__.partition(".")[0]
INSTALLED = ("site-packages", "dist-packages")
Import = ast.Import | ast.ImportFrom


def version_or_source(part: Any) -> str:
    """The `version` that a class or function gives itself, a number or a text, else its `source_digest`."""
    version = getattr(part, "__dict__", {}).get("version")
    return str(version) if isinstance(version, int | float | str) else source_digest(part)


def unwrapped(function: Any) -> Any:
    """The class or function whose code it is: of a `functools.partial` what that calls, of an object its class."""
    while isinstance(function, partial):
        function = function.func
    return function if hasattr(function, "__qualname__") else type(function)


def source_digest(part: Any) -> str:
    """Eight hex digits of the source of a class or function; empty for one of this package, and where it cannot be read.

    Counted is, beside its own source, what that names of its module and of others of the same package or folder: functions,
    classes and constants, and what these name. Comments and docstrings are not, nor is an installed library. It is read from
    files, so that it does not hang on what happens to be imported. The digest is kept with the class or function, which a
    worker process may get without its source.
    """
    if str(part.__module__).partition(".")[0] in (OURS, "builtins", "abc", "typing"):
        return ""
    if "_source_digest" not in getattr(part, "__dict__", {}):  # of its own, not of a class that it is made of
        digest = _digest(part)
        try:
            part._source_digest = digest
        except (AttributeError, TypeError):  # one written in C
            return digest
    return vars(part)["_source_digest"]


class Place(NamedTuple):
    """A module's file: the folder in which its top-level package or module lies, and its dotted name there."""

    root: Path
    name: str

    def other(self, name: str) -> Place | None:
        """Another module of the same package or, unless that is installed among others, of the same folder."""
        same_package = name.partition(".")[0] == self.name.partition(".")[0]
        found = Place(self.root, name)
        return found if name and found.file and (same_package or not set(INSTALLED) & set(self.root.parts)) else None

    @property
    def file(self) -> Path | None:
        path = self.root.joinpath(*self.name.split("."))
        return next((each for each in (path / "__init__.py", path.with_suffix(".py")) if each.is_file()), None)

    @property
    def package(self) -> str:
        """The package from which its relative imports count."""
        inside = self.file is not None and self.file.name == "__init__.py"
        return self.name if inside else self.name.rpartition(".")[0]


def _digest(part: Any) -> str:
    try:
        own = ast.parse(textwrap.dedent(inspect.getsource(part)))
    except (OSError, TypeError, SyntaxError):
        return ""
    found = {("", part.__qualname__): _dumped(own)}
    if place := _place(part):
        waiting = [*((place, name) for name in _named(own)), *_inside(place, own)]
        seen = set(waiting)
        while waiting:
            new = set(_meant(*waiting.pop(), found)) - seen
            seen |= new
            waiting += new
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:8]


def _place(part: Any) -> Place | None:
    """The module of a class or function; None where that is no file, as in a notebook."""
    try:
        file = Path(inspect.getsourcefile(part) or "").resolve()
    except TypeError:
        return None
    name = part.__module__
    if name == "__main__":
        name = getattr(getattr(sys.modules[name], "__spec__", None), "name", None) or file.stem
    depth = name.count(".") + (file.name == "__init__.py")
    place = Place(file.parents[depth], name) if len(file.parents) > depth else None
    return place if place and place.file == file else None


def _meant(place: Place, dotted: str, found: dict[tuple[str, str], str]) -> Iterator[tuple[Place, str]]:
    """Adds to `found` what a name means in a module, and gives what this names in turn."""
    name, _, rest = dotted.partition(".")
    bound, starred = _binding(place.file, place.file.stat().st_mtime_ns if place.file else 0)
    for statement in bound.get(name, ()):
        if isinstance(statement, Import):
            yield from _imported(place, statement, name, rest)
    plain = [each for each in bound.get(name, ()) if not isinstance(each, Import)]
    key = (place.name, name)
    if plain and key not in found:
        found[key] = "".join(map(_dumped, plain))
        for statement in plain:
            yield from ((place, each) for each in _named(statement))
            yield from _inside(place, statement)
    if not bound.get(name):
        for statement in starred:
            if other := place.other(_base(place, statement)):
                yield other, dotted


def _inside(place: Place, tree: ast.AST) -> Iterator[tuple[Place, str]]:
    """What the imports inside of functions bring, by the names that the tree reads."""
    names = _named(tree)
    for statement in (each for each in ast.walk(tree) if isinstance(each, Import)):
        for dotted in names:
            name, _, rest = dotted.partition(".")
            yield from _imported(place, statement, name, rest)


def _imported(place: Place, statement: Import, name: str, rest: str) -> Iterator[tuple[Place, str]]:
    """The modules of the same package or folder, and the names in them, that an imported name may stand for.

    `rest` is what is asked of it, as "f" of "losses.f".
    """
    for alias in statement.names:
        if name != (alias.asname or (alias.name if isinstance(statement, ast.ImportFrom) else alias.name.partition(".")[0])):
            continue
        if isinstance(statement, ast.ImportFrom):  # a name of the module, or a module of the package
            base = _base(place, statement)
            pairs = [(base, f"{alias.name}.{rest}".rstrip(".")), (f"{base}.{alias.name}", rest)] if base else []
        else:  # of "a.b.f" it may be f of a.b, or b of a
            whole = ".".join(filter(None, (alias.name if alias.asname else name, rest))).split(".")
            pairs = [(".".join(whole[:end]), ".".join(whole[end:])) for end in range(1, len(whole))]
        for module, inner in pairs:
            if inner and (other := place.other(module)):
                yield other, inner


def _base(place: Place, statement: ast.ImportFrom) -> str:
    """The module from which a statement imports, its dots resolved; empty where they lead out of the package."""
    if not statement.level:
        return statement.module or ""
    parents = place.package.split(".")
    kept = parents[: len(parents) - statement.level + 1]
    return ".".join([*kept, *filter(None, [statement.module])]) if kept and place.package else ""


@cache
def _binding(file: Path | None, changed: int) -> tuple[dict[str, list[ast.stmt]], list[ast.ImportFrom]]:
    """The statements of a module, outside of functions and classes, by the names that they bind, and its imports of all."""
    bound: dict[str, list[ast.stmt]] = {}
    starred: list[ast.ImportFrom] = []
    try:
        body: list[ast.stmt] = ast.parse(file.read_bytes()).body if file else []
    except (OSError, SyntaxError, ValueError):
        body = []
    for statement in _outside(body):
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [statement.name]
        elif isinstance(statement, Import):
            names = [alias.asname or alias.name for alias in statement.names]
            names = names if isinstance(statement, ast.ImportFrom) else [each.partition(".")[0] for each in names]
            if isinstance(statement, ast.ImportFrom) and "*" in names:
                starred.append(statement)
        else:
            stored = (each for each in ast.walk(statement) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store))
            names = [each.id for each in stored]
        for name in dict.fromkeys(names):
            bound.setdefault(name, []).append(statement)
    return bound, starred


def _outside(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements of a module; of "if", "try", "with" and loops those inside, and not what is for type checkers alone."""
    for statement in body:
        inner = [each for each in ast.walk(statement) if isinstance(each, ast.stmt) and each is not statement]
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or not inner:
            yield statement
        elif not (isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test)):
            children = list(ast.iter_child_nodes(statement))
            handlers = [each for child in children for each in getattr(child, "body", []) if not isinstance(child, ast.stmt)]
            yield from _outside([each for each in [*children, *handlers] if isinstance(each, ast.stmt)])


def _named(tree: ast.AST) -> set[str]:
    """The names that a tree reads, "f", and "losses.f" for an attribute of a name."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, inner = [node.attr], node.value
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
    documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    for node in ast.walk(tree):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)
