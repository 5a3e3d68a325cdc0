"""What an algorithm says of itself."""

import json

import pytest
from mopo_bench.algorithms.learning.experience import Experience
from mopo_bench.algorithms.learning.registry import Algorithm, all_algorithms, get_algorithm
from mopo_bench.algorithms.sac import SAC

ROOM = "mopo_bench.algorithms."


def own():
    """Those of this package, by name."""
    return {name: each for name, each in all_algorithms().items() if each.origin.startswith(ROOM)}


@pytest.mark.parametrize("name", sorted(own()))
def test_says_what_it_is(name):
    algorithm = get_algorithm(name)
    said = algorithm.describe(algorithm.configure())
    assert said == json.loads(json.dumps(said))
    assert said["title"] == algorithm.title and said["title"].lower().replace("(", "").replace(")", "") == name.replace(
        "-2020", " 2020"
    )
    assert len(said["about"].split()) > 3
    assert said["stages"].keys() == algorithm.stages.keys()
    assert (said["warmup_steps"] > 0) == (algorithm.learner.warmup_fraction > 0)


def test_what_is_model_free():
    assert {name for name, algorithm in own().items() if not algorithm.model_free} == {"mbpo", "mopo"}


def test_describes_the_configuration_it_is_given():
    bear, mopo = get_algorithm("bear"), get_algorithm("mopo")
    assert bear.describe(bear.configure({"warmup_steps": 7}))["warmup_steps"] == 7
    assert mopo.describe(mopo.configure())["stages"] == {"dynamics": "dynamics ensemble"}
    for name, share in (("bear", 0.08), ("brac-p", 0.04), ("brac-v", 0.04)):  # of the 500 000 steps of D4RL
        algorithm = get_algorithm(name)
        assert algorithm.describe(algorithm.configure())["warmup_steps"] == share * 500_000
        assert algorithm.learner.warmup_fraction == share


def test_says_little_of_what_says_nothing():
    algorithm = Algorithm("mine", SAC, Experience)
    said = algorithm.describe(algorithm.configure())
    assert said == {"title": "mine", "about": "", "model_free": True, "stages": {}, "warmup_steps": 0}
