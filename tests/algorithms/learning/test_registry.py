"""How algorithms from outside are registered, told apart and configured."""

import importlib.util
import sys

import pytest
from mopo_bench.algorithms.learning.registry import (
    Algorithm,
    all_algorithms,
    register_algorithm,
    task_settings,
    version_of,
)
from mopo_bench.algorithms.sac import SAC
from mopo_bench.common.errors import UserError
from mopo_bench.common.source_digest import source_digest
from mopo_bench.tasks.registry import all_tasks, get_task, register_task
from mopo_bench.tasks.task import Task


@pytest.mark.parametrize("name", ["my/algo", "../../escape", "", "a b", "a:b", "all", "stages", "-x", ".hidden", "ä"])
def test_names_that_a_folder_or_an_option_cannot_bear(name):
    before = dict(all_algorithms())
    with pytest.raises(UserError, match="a name is made of letters") as refused:
        register_algorithm(name, SAC)
    assert "\n" not in str(refused.value) and all_algorithms() == before
    with pytest.raises(UserError, match="a name is made of letters"):
        register_task(Task(name, "Pendulum-v1", get_task("pendulum-mixed").problem))


def test_a_taken_name_wants_to_be_replaced(monkeypatch):
    monkeypatch.setitem(all_algorithms(), "sac", all_algorithms()["sac"])
    monkeypatch.setitem(all_tasks(), "ant-angle", all_tasks()["ant-angle"])
    with pytest.raises(UserError, match=r"'sac' is registered by mopo_bench\.algorithms\.sac already: .*replace=True"):
        register_algorithm("sac", SAC)
    with pytest.raises(UserError, match="'ant-angle' is registered by mopo_bench already"):
        register_task(Task("ant-angle", "Ant-v4", get_task("ant-angle").problem))
    assert register_algorithm("sac", SAC, replace=True).origin == __name__
    register_algorithm("sac", SAC, tau=0.5)  # by the same module, as a notebook's cell that is run again
    assert all_algorithms()["sac"].configure()["tau"] == 0.5


def test_a_task_says_who_registered_it(monkeypatch):
    monkeypatch.setitem(all_tasks(), "mine", None)
    monkeypatch.delitem(all_tasks(), "mine")
    assert register_task(Task("mine", "Pendulum-v1", get_task("pendulum-mixed").problem)).origin == __name__
    assert get_task("hopper-medium").origin == "mopo_bench"


SOURCE = """
from mopo_bench.algorithms.sac import SAC
class Mine(SAC):
    {version}
    def update(self, batch, noise, phase):
        return super().update(batch, noise, phase){edit}
"""


def loaded(folder, monkeypatch, **changes):
    """The class Mine of a module with this source, which nothing else has imported."""
    text = SOURCE.format(**{"version": "pass", "edit": "", **changes})
    path = folder / f"outside_{abs(hash(text))}.py"
    path.write_text(text)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, path.stem, module)  # where Python looks for the source of a class
    specification.loader.exec_module(module)
    return module.Mine


def test_edited_code_from_outside_is_another_version(tmp_path, monkeypatch):
    first, edited = loaded(tmp_path, monkeypatch), loaded(tmp_path, monkeypatch, edit=" or None")
    assert version_of(first) != version_of(edited) and version_of(first).endswith(version_of(SAC))
    assert len(source_digest(first)) == 8 and source_digest(SAC) == ""


def test_a_version_of_its_own_stands_for_the_source(tmp_path, monkeypatch):
    one = loaded(tmp_path, monkeypatch, version="version = 3")
    other = loaded(tmp_path, monkeypatch, version="version = 3", edit=" or None")
    assert version_of(one) == version_of(other) == f"3.{version_of(SAC)}"


def test_an_algorithm_says_which_side_of_its_metrics_is_worse():
    from mopo_bench.algorithms.learning.dynamics import Dynamics

    class Mine(SAC):
        worse = {"critic_loss": "high", "temperature": "neither"}  # noqa: RUF012 - as an author would write it
        stages = {"model": Dynamics}  # noqa: RUF012 - likewise

    mine = Algorithm("mine", Mine)
    of_the_fit = {f"model.{metric}": side for metric, side in Dynamics.worse.items()}
    assert mine.describe(mine.configure())["worse"] == {"critic_loss": "high", "temperature": "neither", **of_the_fit}
    assert all_algorithms()["sac"].worse == {} and "dynamics.holdout_reward_r2" in all_algorithms()["mopo"].worse


def test_settings_by_task_are_the_package_s_own():
    """A stranger's `tau` may mean another thing: point-angle's 0.01 is not for it, unless it says whose variant it is."""
    assert task_settings(all_algorithms()["sac"], "point-angle")["tau"] == 0.01
    assert task_settings(Algorithm("iql", SAC, origin="outside.iql"), "point-angle") == {}
    assert task_settings(Algorithm("iql", SAC, origin="outside.iql", variant_of="sac"), "point-angle")["tau"] == 0.01
