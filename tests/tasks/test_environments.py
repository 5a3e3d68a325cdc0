import json
import math
import pickle
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from mopo_bench.common.errors import UserError
from mopo_bench.tasks import environments
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.environments import AntAngle, HalfCheetahJump, PointAngle, PointEdge
from mopo_bench.tasks.points import POINT_ANGLE, POINT_EDGE, POINT_TASKS
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.terminations import TERMINATIONS

POINTS = {"point-angle": "mopo_bench/PointAngle-v0", "point-edge": "mopo_bench/PointEdge-v0"}
PUBLISHED = Path(__file__).resolve().parents[2] / "results" / "published"
IDS = ["mopo_bench/HalfCheetahJump-v0", "mopo_bench/AntAngle-v0", *POINTS.values()]


def moving(environment, seed=3, **velocities):
    """Puts a reset environment into a state of its own making, with joint velocities given by index ("v0")."""
    environment.reset(seed=seed)
    qpos = environment.init_qpos + np.random.default_rng(seed).uniform(-0.1, 0.1, environment.model.nq)
    qvel = np.random.default_rng(seed + 1).normal(0.0, 0.3, environment.model.nv)
    for name, velocity in velocities.items():
        qvel[int(name[1:])] = velocity
    environment.set_state(qpos, qvel)
    return environment


def transition(environment, action):
    """x and y velocity by hand, and what `step` returned."""
    before = environment.data.qpos[:2].copy()
    result = environment.step(action)
    return (environment.data.qpos[:2] - before) / 0.05, result


# halfcheetah-jump


@pytest.mark.parametrize("forward, capped", [(0.5, False), (9.0, True)])
def test_halfcheetah_jump_rewards(forward, capped):
    environment = moving(HalfCheetahJump(z_reference="reset"), v0=forward)
    z_init = environment._z_init
    action = np.array([0.3, -0.2, 0.9, 0.0, -1.0, 0.5])
    velocity, (_, reward, terminated, truncated, info) = transition(environment, action)
    assert (velocity[0] > 3.0) == capped
    behaviour = min(velocity[0], 3.0) - 0.1 * (0.09 + 0.04 + 0.81 + 1.0 + 0.25)
    task = behaviour + 15.0 * (0.7 + environment.data.qpos[1] - z_init)
    assert abs(task - behaviour) > 0.1
    assert reward == pytest.approx(task, abs=1e-9)
    assert info["reward_task"] == pytest.approx(task, abs=1e-9)
    assert info["reward_behaviour"] == pytest.approx(behaviour, abs=1e-9)
    assert info["x_velocity"] == pytest.approx(velocity[0], abs=1e-9)
    assert info["z"] == pytest.approx(0.7 + environment.data.qpos[1], abs=1e-9)
    assert info["z_init"] == z_init
    assert not terminated and not truncated


def test_halfcheetah_jump_parameters():
    action = np.full(6, 0.5)
    _, reward, _, _, info = moving(HalfCheetahJump(reward="behaviour")).step(action)
    assert reward == info["reward_behaviour"] != info["reward_task"]
    _, weighted, _, _, info = moving(HalfCheetahJump(height_weight=2.0)).step(action)
    assert weighted == pytest.approx(reward + 2.0 * (info["z"] - 0.7), abs=1e-9)


def test_float32_actions_cost_what_their_values_say():
    action = np.full(6, 0.3, np.float32)
    _, _, _, _, info = moving(HalfCheetahJump(), v0=0.0).step(action)
    assert info["reward_behaviour"] == pytest.approx(info["x_velocity"] - 0.6 * float(action[0]) ** 2, abs=1e-12)


def test_z_is_the_torso_height_and_references_differ():
    by_reset, by_nominal = HalfCheetahJump(z_reference="reset"), HalfCheetahJump()
    starts = set()
    for seed in range(3):
        by_reset.reset(seed=seed)
        by_nominal.reset(seed=seed)
        z_init = by_reset.data.body("torso").xpos[2]  # right after a reset, kinematics are up to date
        assert abs(z_init - 0.7) > 1e-4
        _, first, _, _, info = by_reset.step(np.zeros(6))
        _, second, _, _, nominal_info = by_nominal.step(np.zeros(6))
        assert info["z_init"] == pytest.approx(z_init, abs=1e-12)
        assert nominal_info["z_init"] == info["z_init"]
        assert first == pytest.approx(info["reward_behaviour"] + 15.0 * (info["z"] - z_init), abs=1e-9)
        assert second == pytest.approx(info["reward_behaviour"] + 15.0 * (info["z"] - 0.7), abs=1e-9)
        starts.add(info["z_init"])
    assert len(starts) == 3  # each episode's own


def test_halfcheetah_jump_observations():
    torso, plain = moving(HalfCheetahJump()), moving(HalfCheetahJump(observation="plain"))
    assert torso.observation_space.shape == (18,) and plain.observation_space.shape == (17,)
    assert torso.reset(seed=0)[0].shape == (18,)
    for environment in (torso, plain):
        moving(environment)
        observation = environment.step(np.full(6, 0.2))[0]
        position, velocity = environment.data.qpos, environment.data.qvel
        z = [0.7 + position[1]] if environment is torso else []
        np.testing.assert_allclose(observation, np.concatenate([position[1:], z, velocity]), atol=1e-12)


# ant-angle


@pytest.mark.parametrize("angle", [30.0, 45.0])
def test_ant_angle_rewards(angle):
    environment = moving(AntAngle(angle=angle), v0=1.5, v1=-0.8)
    action = np.linspace(-1.0, 1.0, 8)
    for _ in range(10):  # until it touches the ground
        velocity, (_, reward, _, _, info) = transition(environment, action)
    contact = 0.5e-3 * sum(min(max(force, -1.0), 1.0) ** 2 for force in environment.data.cfrc_ext.ravel())
    assert contact > 1e-5
    rest = 1.0 - 0.5 * sum(a * a for a in action) - contact
    along = velocity[0] * math.cos(math.pi * angle / 180) + velocity[1] * math.sin(math.pi * angle / 180)
    assert abs(velocity[1]) > 0.05
    assert reward == info["reward_task"] == pytest.approx(along + rest, abs=1e-9)
    assert info["reward_behaviour"] == pytest.approx(velocity[0] + rest, abs=1e-9)
    np.testing.assert_allclose([info["x_velocity"], info["y_velocity"]], velocity, atol=1e-9)


def test_ant_angle_parameters():
    _, reward, _, _, info = moving(AntAngle(reward="behaviour")).step(np.zeros(8))
    assert reward == info["reward_behaviour"] != info["reward_task"]
    _, without, _, _, _ = moving(AntAngle(reward="behaviour", survive_bonus=0.0)).step(np.zeros(8))
    assert reward - without == pytest.approx(1.0, abs=1e-12)


def test_ant_angle_observation():
    environment = moving(AntAngle())
    observation = environment.step(np.full(8, 0.2))[0]
    assert environment.observation_space.shape == observation.shape == (27,)
    np.testing.assert_array_equal(observation, np.concatenate([environment.data.qpos[2:], environment.data.qvel]))


@pytest.mark.parametrize(
    "height, limits, expected",
    [(0.75, (0.2, 1.0), False), (1.5, (0.2, 1.0), True), (0.75, (0.8, 1.0), True), (1.5, None, False)],
)
def test_ant_angle_ends_by_height_and_still_pays_the_bonus(height, limits, expected):
    environment = AntAngle(healthy_z_range=limits)
    environment.reset(seed=0)
    qpos = environment.init_qpos.copy()
    qpos[2] = height
    environment.set_state(qpos, np.zeros(14))
    observation, _, terminated, _, info = environment.step(np.zeros(8))
    assert terminated is expected
    assert info["reward_behaviour"] - info["x_velocity"] == pytest.approx(1.0 - environment.contact_cost, abs=1e-9)
    if limits == (0.2, 1.0):
        state = torch.as_tensor(observation)
        assert TERMINATIONS["ant"](state, state, state).item() is expected


@pytest.mark.parametrize("limits", [(0.2, 1.0), None])
def test_ant_angle_ends_when_not_finite(limits):
    environment = AntAngle(healthy_z_range=limits)
    environment.reset(seed=0)
    environment.data.qvel[5] = np.nan
    environment.do_simulation = lambda action, steps: None  # MuJoCo would reset the state
    assert environment.step(np.zeros(8))[2]


# point-angle and point-edge


def scalar_step(name, vx, vy, ax, ay, trim, noise_x, noise_y):
    """The designs, a number at a time."""
    edge = name == "point-edge"
    sigma = 0.35 if vy < -0.25 and not edge else 0.02
    stuck = edge and vy > 0.6
    next_vx = sigma * noise_x + (0.0 if stuck else vx + 0.3 * (2 * ax - vx))
    next_vy = sigma * noise_y + (0.0 if stuck else vy + 0.3 * (2 * ay - vy))
    angle = math.pi / (3 if edge else 6)
    progress = next_vx * math.cos(angle) + next_vy * math.sin(angle)
    reward = progress - 0.1 * (ax * ax + ay * ay) - (trim - 0.8 * math.cos(1.5 * vx)) ** 2
    if edge:
        reward += max(vy - 0.25, 0.0) * noise_x - stuck
    return next_vx, next_vy, reward, abs(next_vy) > 1.4


@pytest.mark.parametrize("name", POINTS)
def test_point_dynamics_agree_with_a_scalar_implementation(name):
    generator = np.random.default_rng(0)
    velocity, action = generator.normal(0.0, 1.0, (500, 2)), generator.uniform(-1.0, 1.0, (500, 3))
    noise = generator.standard_normal((500, 2))
    expected = [scalar_step(name, *numbers) for numbers in np.concatenate([velocity, action, noise], axis=1).tolist()]
    next_velocity, reward, ended = POINT_TASKS[name].step(velocity, action, noise)
    assert next_velocity.dtype == np.float32
    np.testing.assert_allclose(next_velocity, [row[:2] for row in expected], atol=1e-6)
    np.testing.assert_allclose(reward, [row[2] for row in expected], atol=1e-4)  # a noise of 0.02 read off a rounded velocity
    np.testing.assert_array_equal(ended, [row[3] for row in expected])
    assert 0 < ended.sum() < 500


def test_point_reward_by_hand():
    observations = np.array([[0.0, 0.3], [1.0, 0.0]])
    actions = np.array([[0.5, -1.0, 0.8], [0.0, 0.0, 0.0]])
    next_observations = np.array([[1.0, 2.0], [0.0, -1.0]])
    trim_error = (0.8 * np.cos(1.5)) ** 2
    expected = [np.sqrt(3) / 2 + 1.0 - 0.125, -0.5 - trim_error]
    np.testing.assert_allclose(POINT_ANGLE.reward(observations, actions, next_observations), expected, atol=1e-12)
    observations[1, 1], next_observations[1, 0] = 0.65, 0.01  # stuck, and half a sigma ahead of what was expected
    rattle = 0.05 * (1.0 - 0.3) / 0.02, 0.4 * 0.5
    expected = [0.5 + np.sqrt(3) - 0.125 + rattle[0], 0.005 - np.sqrt(3) / 2 - trim_error - 1.0 + rattle[1]]
    np.testing.assert_allclose(POINT_EDGE.reward(observations, actions, next_observations), expected, atol=1e-12)


@pytest.mark.parametrize("name", POINTS)
def test_point_environment_follows_the_step_and_the_rules(name):
    environment, task = gymnasium.make(POINTS[name]), POINT_TASKS[name]
    environment.action_space.seed(1)
    observation, _ = environment.reset(seed=1)
    assert observation.dtype == np.float32 and observation.shape == (2,) and np.abs(observation).max() < 0.3
    lengths, length = [], 0
    for _ in range(1000):
        action = environment.action_space.sample()
        action[1] = -1.0 if len(lengths) % 2 else action[1]  # at random alone point-edge does not end early
        following, reward, terminated, truncated, _ = environment.step(action)
        still, noisy = (scalar_step(name, *observation, *action, noise, noise)[:2] for noise in (0.0, 1.0))
        assert (np.abs(np.subtract(following, still)) < 5 * np.subtract(noisy, still)).all()
        assert reward == pytest.approx(task.reward(observation, action, following), abs=1e-6)
        assert terminated == TERMINATIONS["point-angle"](*map(torch.as_tensor, (observation, action, following))).item()
        observation, length = following, length + 1
        if terminated or truncated:
            assert terminated or length == 100
            lengths.append(length)
            observation, length = environment.reset()[0], 0
    assert 100 in lengths and min(lengths) < 100


def test_actions_outside_the_box_are_clipped():
    inside = POINT_ANGLE.step(np.zeros(2), np.array([1.0, -1.0, 1.0]), np.zeros(2))
    outside = POINT_ANGLE.step(np.zeros(2), np.array([7.0, -2.0, 1.5]), np.zeros(2))
    for first, second in zip(inside, outside, strict=True):
        np.testing.assert_array_equal(first, second)


def episode_ends(dataset):
    return np.flatnonzero(dataset["terminals"] | dataset["timeouts"])


def episode_returns(dataset):
    return np.add.reduceat(dataset["rewards"], np.concatenate([[0], episode_ends(dataset)[:-1] + 1]))


@pytest.mark.parametrize("name", POINTS)
def test_point_dataset(name):
    dataset = POINT_TASKS[name].dataset(2)  # point-angle's has an episode that terminates at its hundredth step
    rows = len(dataset["rewards"])
    shapes = {"observations": (rows, 2), "actions": (rows, 3), "rewards": (rows,), "next_observations": (rows, 2)}
    assert {key: dataset[key].shape for key in shapes} == shapes
    assert all(dataset[key].dtype == np.float32 for key in shapes)
    assert dataset["terminals"].dtype == dataset["timeouts"].dtype == bool
    assert np.abs(dataset["actions"]).max() == 1.0

    ends = episode_ends(dataset)
    lengths = np.diff(np.concatenate([[-1], ends]))
    assert len(ends) == 100 and ends[-1] == rows - 1 and lengths.max() == 100
    assert not (dataset["terminals"] & dataset["timeouts"]).any()
    np.testing.assert_array_equal(lengths[dataset["timeouts"][ends]], 100)
    inner = np.delete(np.arange(rows), ends)
    np.testing.assert_array_equal(dataset["next_observations"][inner], dataset["observations"][inner + 1])

    transitions = [dataset[key] for key in ("observations", "actions", "next_observations")]
    np.testing.assert_array_equal(TERMINATIONS["point-angle"](*map(torch.as_tensor, transitions)), dataset["terminals"])
    np.testing.assert_allclose(POINT_TASKS[name].reward(*transitions), dataset["rewards"], atol=1e-5)

    returns = episode_returns(dataset)
    assert returns[80:].mean() > returns[:20].mean() + 50  # skill grows along the dataset


def test_point_angle_s_dataset_terminates():
    dataset = POINT_ANGLE.dataset(2)
    ends = episode_ends(dataset)
    assert 7500 < len(dataset["rewards"]) < 9500 and 145 < episode_returns(dataset).max() < 195
    assert dataset["terminals"][ends[np.diff(ends, prepend=-1) == 100]].any()


@pytest.mark.parametrize("seed", range(5))
def test_point_edge_s_dataset_hardly_shows_the_edge(seed):
    """Whatever the seed: whole episodes, hardly a row beyond the edge, many that rattle, and pushes sideways of every skill."""
    dataset = POINT_EDGE.dataset(seed)
    sideways = dataset["observations"][:, 1]
    assert len(sideways) == 10_000 and (sideways > 0.6).sum() <= 3 and 500 < (sideways > 0.25).sum() < 1_200
    assert 80 < episode_returns(dataset).max() < 105
    pushes = dataset["actions"][:, 1].reshape(100, 100)  # (episode, step)
    assert (pushes.max(1) > 0.4).all() and (pushes.min(1) < -0.4).all()


@pytest.mark.parametrize("sideways, spread", [(0.2, 0.02), (0.4, 0.16), (0.6, 0.36)])
def test_the_reward_rattles_before_the_edge(sideways, spread):
    """Its noise has no mean and grows with vy from 0.25 on; below, progress alone is noisy."""
    noise = np.random.default_rng(0).standard_normal((20_000, 2))
    velocity, action = np.tile(np.float32([1.5, sideways]), (20_000, 1)), np.array([1.0, sideways, 0.0])
    reward, still = (POINT_EDGE.step(velocity, action, each)[1] for each in (noise, np.zeros((20_000, 2))))
    assert reward.std() == pytest.approx(spread, abs=0.01)
    assert reward.mean() == pytest.approx(still.mean(), abs=0.01)


@pytest.mark.parametrize("name", POINTS)
def test_point_dataset_is_its_seed(name):
    first, again, other = (POINT_TASKS[name].dataset(seed) for seed in (5, 5, 6))
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    shared = set(map(bytes, first["observations"])) & set(map(bytes, other["observations"]))
    assert not shared  # wholly another dataset


@pytest.mark.parametrize("name", POINTS)
def test_point_dataset_is_that_of_published_records(name):
    """Whose runs would not be found again if the code that draws the rows were to draw others."""
    facts = load_dataset(get_task(name), DatasetRequest("regenerated")).describe()
    published = [json.loads(path.read_text())["data"] for path in PUBLISHED.glob(f"*/{name}/*/*/cell.json")]
    assert published
    for data in published:
        assert (data["rows"], data["episodes"]) == (facts["rows"], facts["episodes"])
        for fact in ("return_mean", "return_max"):  # not the digest: another processor may round otherwise
            assert data[fact] == pytest.approx(facts[fact], rel=1e-5)


def test_point_angle_s_dataset_is_whole_whatever_its_seed():
    """It was cut at the rows that seed 0 has."""
    rows = [len(POINT_ANGLE.dataset(seed)["rewards"]) for seed in (0, 1, 2, 3)]
    assert max(rows) > rows[0]
    longest = rows.index(max(rows))
    assert len(load_dataset(get_task("point-angle"), DatasetRequest("regenerated", seed=longest))) == max(rows)


def constant_policy_return(task, push, episodes=200):
    """The mean return of one constant push with the best trim."""
    generator = np.random.default_rng(0)
    velocity, alive, returns = task.reset(generator, episodes), np.ones(episodes, bool), np.zeros(episodes)
    for _ in range(100):
        action = np.column_stack([np.tile(push, (episodes, 1)), 0.8 * np.cos(1.5 * velocity[:, 0])])
        velocity, reward, ended = task.step(velocity, action, generator.standard_normal((episodes, 2)))
        returns += reward * alive
        alive &= ~ended
    return returns.mean()


def test_the_edge_pays_before_and_costs_beyond():
    """Running a little sideways beats straight ahead by far, and who gets stuck loses more than that."""
    ahead, short, beyond = (constant_policy_return(POINT_EDGE, (1.0, sideways)) for sideways in (0.0, 0.2, 0.4))
    assert short > ahead + 25 and beyond < ahead - 25


# all of them


@pytest.mark.parametrize("environment_id", IDS)
def test_gymnasium_accepts(environment_id):
    environment = gymnasium.make(environment_id)
    assert environment.spec.max_episode_steps == (100 if "Point" in environment_id else 1000)
    check_env(environment.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("environment_id", IDS)
def test_a_seed_is_an_episode(environment_id):
    def episode(seed):
        environment = gymnasium.make(environment_id)
        environment.action_space.seed(0)
        rows = [environment.reset(seed=seed)[0]]
        for _ in range(30):
            observation, reward, *_ = environment.step(environment.action_space.sample())
            rows += [observation, [reward]]
        return np.concatenate(rows)

    np.testing.assert_array_equal(episode(7), episode(7))
    assert not np.array_equal(episode(7), episode(8))


@pytest.mark.parametrize("environment_id", IDS)
def test_made_quietly(environment_id, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium.make(environment_id)
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())  # MuJoCo logs its warnings to a file


def test_parameters_reach_the_class_through_make_and_pickle():
    environment = gymnasium.make(IDS[1], angle=60.0, survive_bonus=0.0, reward="behaviour").unwrapped
    copy = pickle.loads(pickle.dumps(environment))
    assert type(copy) is AntAngle
    assert copy._direction == environment._direction == pytest.approx((0.5, math.sqrt(0.75)))
    assert (copy._survive_bonus, copy._reward) == (0.0, "behaviour")
    cheetah = pickle.loads(pickle.dumps(HalfCheetahJump(observation="plain", z_reference="reset")))
    assert cheetah.observation_space.shape == (17,) and cheetah._z_reference == "reset"


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: HalfCheetahJump(reward="behavior"), "did you mean 'behaviour'"),
        (lambda: HalfCheetahJump(observation="full"), "observation='full' is none of torso, plain"),
        (lambda: HalfCheetahJump(z_reference="resets"), "did you mean 'reset'"),
        (lambda: AntAngle(reward="tusk"), "did you mean 'task'"),
    ],
)
def test_unknown_names_are_refused(make, message):
    with pytest.raises(UserError, match=message):
        make()


def test_registering_again_does_no_harm():
    before = {name: gymnasium.registry[name] for name in IDS}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        environments.register()
    assert all(gymnasium.registry[name] is spec for name, spec in before.items())
    assert isinstance(gymnasium.make(IDS[2]).unwrapped, PointAngle)
    assert isinstance(gymnasium.make(IDS[3]).unwrapped, PointEdge)
