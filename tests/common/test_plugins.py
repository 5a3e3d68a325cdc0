"""Plug-ins: one that cannot be imported is named; the others are there."""

import subprocess
import sys
from importlib.metadata import EntryPoint

from mopo_bench.common import plugins


def test_a_broken_plug_in_is_named_and_left_out(monkeypatch, capsys, tmp_path):
    (tmp_path / "good_plugin.py").write_text("loaded = True\n")
    (tmp_path / "broken_plugin.py").write_text("import something_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    entries = [EntryPoint(name, f"{name}_plugin", "mopo_bench") for name in ("broken", "good")]
    monkeypatch.setattr(plugins, "entry_points", lambda group: entries)
    monkeypatch.setattr(plugins, "_loaded", False)
    plugins.load_plugins()
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "broken (broken_plugin)" in said and "something_that_is_not_there" in said
    assert sys.modules["good_plugin"].loaded
    plugins.load_plugins()
    assert capsys.readouterr().err == ""


def test_a_module_is_the_same_when_it_runs_as_a_program(tmp_path):
    """It registers once as the program, and once as the plug-in that it is."""
    (tmp_path / "own.py").write_text("from mopo_bench.common.plugins import origin_of\nprint(origin_of(globals()))\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text((tmp_path / "own.py").read_text())
    for words, name in ((["-m", "own"], "own"), (["own.py"], "own"), (["-m", "package"], "package")):
        said = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        assert said.stdout == f"{name}\n"
    assert plugins.origin_of({"__name__": "__main__"}) == "__main__"  # a notebook
