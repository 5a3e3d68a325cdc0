"""Plug-ins: one that cannot be imported is named and left out; the others are there."""

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
