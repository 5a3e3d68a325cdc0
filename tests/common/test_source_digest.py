"""What counts as the code of a stranger's class or function, and what does not."""

import importlib
import subprocess
import sys
from functools import partial

import pytest
import torch
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.source_digest import source_digest, unwrapped, version_or_source

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


def written(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def imported(monkeypatch, root, name):
    monkeypatch.syspath_prepend(root)
    for known in [known for known in sys.modules if known.partition(".")[0].startswith("strange")]:
        monkeypatch.delitem(sys.modules, known)
    importlib.invalidate_caches()
    return importlib.import_module(name)


LIMITED = "def f(x):\n    return x < {}\n"
WITHIN = "    import strange_constants\n    return x < strange_constants.LIMIT\n"
WAYS = {
    "a name of a module": "from strange_constants import LIMIT\n" + LIMITED.format("LIMIT"),
    "a module": "import strange_constants\n" + LIMITED.format("strange_constants.LIMIT"),
    "a module by another name": "import strange_constants as c\n" + LIMITED.format("c.LIMIT"),
    "all names": "from strange_constants import *\n" + LIMITED.format("LIMIT"),
    "within the function": "def f(x):\n" + WITHIN,
    "within a helper": "def f(x):\n    return g(x)\ndef g(x):\n" + WITHIN,
    "one of two ways": "try:\n    import nothing\nexcept ImportError:\n    from strange_constants import LIMIT\n"
    + LIMITED.format("LIMIT"),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_constant_counts_however_it_is_imported(tmp_path, monkeypatch, way):
    def digest(limit):
        written(tmp_path, {"strange_constants.py": f"LIMIT = {limit}\n", "strange_rules.py": WAYS[way]})
        return source_digest(imported(monkeypatch, tmp_path, "strange_rules").f)

    assert digest(1) != digest(22)


def test_a_package_that_gives_a_submodule_s_function_its_name(tmp_path, monkeypatch):
    def digest(limit):
        files = {"__init__.py": "from .losses import losses\n", "losses.py": f"def losses(x):\n    return {limit}\n"}
        files["rules.py"] = "from strange_pack import losses\n" + LIMITED.format("losses(x)")
        written(tmp_path / "strange_pack", files)
        return source_digest(imported(monkeypatch, tmp_path, "strange_pack.rules").f)

    assert digest(1) != digest(22)


def test_it_does_not_hang_on_what_is_imported(tmp_path, monkeypatch):
    """In a worker other modules may be loaded than where the run was planned."""
    text = (
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .nets import Net\n"
    )
    text += "def f(x: Net):\n    return x\n"
    written(tmp_path / "strange_pack", {"__init__.py": "", "nets.py": "class Net:\n    pass\n", "rules.py": text})
    before = source_digest(imported(monkeypatch, tmp_path, "strange_pack.rules").f)
    module = imported(monkeypatch, tmp_path, "strange_pack.rules")
    importlib.import_module("strange_pack.nets")
    assert source_digest(module.f) == before


def test_as_a_script_and_as_a_module_it_is_the_same(tmp_path, monkeypatch):
    text = "from strange_constants import LIMIT\nSIGN = 1\nclass Mine:\n    def f(self, x):\n        return SIGN * x < LIMIT\n"
    text = "from mopo_bench.common.source_digest import source_digest\n" + text
    shown = "if __name__ == '__main__':\n    print(source_digest(Mine))\n"
    written(tmp_path, {"strange_constants.py": "LIMIT = 1\n", "strange_script.py": text + shown})
    done = subprocess.run([sys.executable, "strange_script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == source_digest(imported(monkeypatch, tmp_path, "strange_script").Mine)


def test_installed_code_does_not_count(tmp_path, monkeypatch):
    def digest(limit):
        files = {
            "strange_library.py": f"LIMIT = {limit}\n",
            "strange_own/limits.py": "LIMIT = 1\n",
            "strange_own/__init__.py": "",
        }
        files["strange_own/rules.py"] = (
            "from strange_library import LIMIT\nfrom .limits import LIMIT as own\ndef f(x):\n    return own + LIMIT\n"
        )
        written(tmp_path / "site-packages", files)
        return source_digest(imported(monkeypatch, tmp_path / "site-packages", "strange_own.rules").f)

    assert digest(1) == digest(22)
    assert source_digest(SAC) == ""


def test_a_version_is_a_number_or_a_text():
    class Odd:
        @property
        def version(self):
            return 1

    class Even:
        version = 2

    assert version_or_source(Odd) == source_digest(Odd) and len(source_digest(Odd)) == 8
    assert version_or_source(Even) == "2"
    assert version_or_source(torch.isnan) == ""
    assert unwrapped(partial(partial(Even), 1)) is Even and unwrapped(Even()) is Even


def test_code_that_names_itself_ends(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strange_circle.py").write_text("def f(x):\n    return g(x)\ndef g(x):\n    return f(x)\n")
    assert len(source_digest(importlib.import_module("strange_circle").f)) == 8


def test_a_function_without_source_has_none():
    scope = {"__name__": "strange_scope"}
    exec("def f(x):\n    return x", scope)
    assert source_digest(scope["f"]) == ""
