"""What counts as the code of a stranger's class or function, and what does not."""

import importlib
import sys

import pytest
import torch
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.source_digest import source_digest

HELPER = """
SCALE = {scale}
UNUSED = {unused}

def scaled(x):
    return x * SCALE

def other(x):
    return {other}
"""
ALGORITHM = '''
"""{docstring}"""
import numpy as np
import {package}.helper as aliased
from {package} import helper
from {package}.helper import scaled

GAIN = {gain}
if True:
    TABLE = {{"a": {table}}}

class Mine:
    """{docstring}"""  # {comment}

    def update(self, x):
        return np.abs(scaled(x) * GAIN + TABLE["a"]) + aliased.other(x)

def run():
    return Mine().update({argument})
'''
PLAIN = {
    "scale": "1",
    "unused": "1",
    "other": "x",
    "docstring": "a",
    "gain": "1",
    "table": "1",
    "comment": "a",
    "argument": "1",
}


@pytest.fixture
def digest(tmp_path, monkeypatch):
    """The digest of the class Mine of a package with these edits, freshly imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def of(**edits):
        values = {**PLAIN, "package": "strange_package", **edits}
        folder = tmp_path / "strange_package"
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        (folder / "helper.py").write_text(HELPER.format(**values))
        (folder / "algorithm.py").write_text(ALGORITHM.format(**values))
        for name in [name for name in sys.modules if name.startswith("strange_package")]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        return source_digest(importlib.import_module("strange_package.algorithm").Mine)

    return of


@pytest.mark.parametrize("edit", ["scale", "other", "gain", "table"])
def test_what_a_class_names_counts_in_its_module_and_beside_it(digest, edit):
    plain = digest()
    assert len(plain) == 8
    assert digest(**{edit: "2"}) != plain
    assert digest() == plain


@pytest.mark.parametrize("edit", ["docstring", "comment", "unused", "argument"])
def test_what_decides_no_number_does_not_count(digest, edit):
    assert digest(**{edit: "2"}) == digest()


def test_installed_code_does_not_count(digest, monkeypatch):
    plain = digest()
    monkeypatch.setattr("numpy.abs", torch.abs)
    assert digest() == plain
    assert source_digest(SAC) == ""


def test_code_that_names_itself_ends(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strange_circle.py").write_text("def f(x):\n    return g(x)\ndef g(x):\n    return f(x)\n")
    assert len(source_digest(importlib.import_module("strange_circle").f)) == 8


def test_a_function_without_source_has_none():
    scope = {"__name__": "strange_scope"}
    exec("def f(x):\n    return x", scope)
    assert source_digest(scope["f"]) == ""
