"""Values in lists, tuples and dicts, one within another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any


def tree_map(change: Callable[[Any], Any], tree: Any) -> Any:
    """The same tree with every leaf changed; a leaf is what is neither list nor tuple (named or not) nor dict."""
    if isinstance(tree, dict):
        return {key: tree_map(change, value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        values = [tree_map(change, value) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return change(tree)


def tree_leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (dict, list, tuple)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from tree_leaves(value)
    else:
        yield tree


def dotted(mapping: Mapping[str, Any], but: str = "", prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} to {"a.b": 1}; entries named `but`, at any depth, are left out."""
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, but, f"{prefix}{name}.")
        elif name != but:
            flat[prefix + name] = value
    return flat
