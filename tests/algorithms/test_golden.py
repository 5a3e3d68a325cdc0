"""Numbers may change only together with a version; see golden.py."""

import golden
import pytest


def message(name, made):
    classes = " or ".join(f"{each}.version" for each in made["versions"] if each != "Experience")
    return f"{name}: the numbers changed: raise {classes} or revert"


@pytest.mark.parametrize("name", golden.NAMES)
def test_golden_trace(name):
    made, kept = golden.trace(name), golden.stored(name)
    assert made["versions"] == kept["versions"], "regenerate with `python tests/algorithms/golden.py`"
    changed = golden.changes(made["numbers"], kept["numbers"])
    assert not changed, f"{message(name, made)} ({', '.join(changed)})"


def test_a_changed_number_is_noticed_and_not_written(tmp_path, monkeypatch):
    kept = golden.stored("bc")
    monkeypatch.setattr(golden, "FOLDER", tmp_path)
    monkeypatch.setattr(golden, "trace", lambda name: kept)
    assert golden.write("bc") is None and golden.stored("bc") == kept
    loss = kept["numbers"]["metric policy_loss"]
    other = {**kept, "numbers": {**kept["numbers"], "metric policy_loss": [loss[0] * (1 + 1e-5), loss[1]]}}
    monkeypatch.setattr(golden, "trace", lambda name: other)
    assert golden.changes(other["numbers"], kept["numbers"]) == ["metric policy_loss"]
    assert "raise a version" in golden.write("bc") and golden.stored("bc") == kept
    raised = {**other, "versions": {"BC": 1_000}}
    monkeypatch.setattr(golden, "trace", lambda name: raised)
    assert golden.write("bc") is None and golden.stored("bc") == raised


def test_the_message_names_the_class():
    assert "the numbers changed: raise SAC.version or revert" in message("sac", golden.stored("sac"))
    assert "raise SAC.version or PenalisedRollouts.version or Dynamics.version" in message("mopo", golden.stored("mopo"))
