"""Without torch's private names the numbers are the same, to rounding; no other file uses such a name."""

import re
from pathlib import Path

import mopo_bench
import pytest
import torch
from mopo_bench.algorithms.learning import private_torch
from mopo_bench.algorithms.learning.optimisation import Adam
from mopo_bench.algorithms.learning.registry import get_algorithm
from mopo_bench.algorithms.learning.testing import Group, assert_same

PRIVATE = re.compile(r"torch(\.\w+)*\._(?!_)")


@pytest.mark.parametrize("name", ["fused_adam", "foreach_lerp"])
def test_public_forms_give_the_same_numbers(name, problem, monkeypatch):
    assert getattr(private_torch, name) is not None
    usual = Group(get_algorithm("sac"), problem, (0, 1))
    usual.advance(10)
    monkeypatch.setattr(private_torch, name, None)
    public = Group(get_algorithm("sac"), problem, (0, 1))
    public.advance(10)
    assert_same(public.states(), usual.states(), f"without {name} the numbers differ", tolerance=1e-10)


def test_public_adam_has_weight_decay(monkeypatch, generator):
    weights = [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    gradients = [torch.randn(2, 3, generator=generator, dtype=torch.float64) for _ in range(3)]
    taken = []
    for fused in (private_torch.fused_adam, None):
        monkeypatch.setattr(private_torch, "fused_adam", fused)
        taken.append([weight.clone() for weight in weights])
        adam = Adam(taken[-1], 1e-2, [0.1, 0.0, 0.1])
        for _ in range(5):
            adam.step(taken[-1], gradients)
    torch.testing.assert_close(*taken, rtol=1e-10, atol=1e-12)


def test_private_names_stand_in_one_file():
    root = Path(mopo_bench.__file__).parent
    files = [path for room in ("common", "tasks", "algorithms", "harness") for path in (root / room).rglob("*.py")]
    assert [path.name for path in files if PRIVATE.search(path.read_text())] == ["private_torch.py"]
