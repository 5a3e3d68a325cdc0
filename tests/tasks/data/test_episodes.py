"""Where episodes end, found from observations alone: against the flags of MuJoCo rollouts, and where the truth is a formula."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from mopo_bench.tasks.data import episodes
from mopo_bench.tasks.data.behaviour_policies import BehaviourPolicy, roll_out
from mopo_bench.tasks.data.episodes import (
    BY_COUNT,
    BY_DATA,
    KINEMATICS,
    Kinematics,
    breaks,
    find_ends,
    flag_notes,
    infer_timeouts,
    jumps,
    tally,
)
from mopo_bench.tasks.registry import get_task

DOMAINS = sorted(KINEMATICS)
LINE = Kinematics(1, timestep=0.1, height=0.0, spread=(0.05, 0.05), still=0.01, jump=(0.2,))  # one position, for formulas
SPEED = 0.5


def ends_of(dataset):
    """The truth; where a log's last row leads cannot be seen in it."""
    ends = dataset.terminals | dataset.timeouts
    ends[-1] = False
    return ends


def linear_policy(task, weights):
    """Actions tanh(observations @ weights), without noise."""
    columns = np.hstack([weights, np.zeros_like(weights)]).astype(np.float32)
    log_std = np.concatenate([np.zeros(task.problem.action_size), np.full(task.problem.action_size, -20.0)])
    return BehaviourPolicy([columns, log_std[None].astype(np.float32)], {})


def standing_policy(task, gain=2.0, damping=0.1):
    """Joints are held where a reset puts them: rows as near to those after a reset as they can be."""
    weights = np.zeros((task.problem.observation_size, task.problem.action_size))
    joints = KINEMATICS[task.name.split("-")[0]].positions - task.problem.action_size
    weights[joints : joints + task.problem.action_size] = -gain * np.eye(task.problem.action_size)
    weights[-task.problem.action_size :] = -damping * np.eye(task.problem.action_size)
    return linear_policy(task, weights)


POLICIES = {
    "random": lambda task: BehaviourPolicy.random(task, 0),
    "zero": lambda task: linear_policy(task, np.zeros((task.problem.observation_size, task.problem.action_size))),
    "standing": standing_policy,
}


@pytest.fixture(scope="module")
def rollout():
    """Datasets of several episodes each, made once: (domain, policy name) to OfflineDataset."""
    made = {}

    def make(domain, policy):
        if (domain, policy) not in made:
            task = get_task(f"{domain}-random")
            task = replace(task, problem=replace(task.problem, max_episode_steps=200))
            made[domain, policy] = roll_out(task, POLICIES[policy](task), 2_500, seed=3)
        return made[domain, policy]

    return make


# On rollouts of the simulator.


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("domain", DOMAINS)
def test_every_end_and_no_other(rollout, domain, policy):
    dataset = rollout(domain, policy)
    truth = ends_of(dataset)
    assert truth.sum() >= 12
    found = breaks(dataset.observations, KINEMATICS[domain])
    assert found.dtype == bool and np.flatnonzero(found != truth).tolist() == []


@pytest.mark.parametrize("domain", DOMAINS)
def test_an_erased_end_is_missed(rollout, domain):
    """The comparison above can fail: next observations in place of a reset leave nothing to find."""
    dataset = rollout(domain, "random")
    end = np.flatnonzero(ends_of(dataset))[2]
    observations = dataset.observations.copy()
    observations[end + 1] = dataset.next_observations[end]
    found = breaks(observations, KINEMATICS[domain])
    assert ends_of(dataset)[end] and not found[end]


@pytest.mark.parametrize("domain", DOMAINS)
def test_last_row_of_timed_out_episodes_left_out(rollout, domain):
    """As in D4RL's halfcheetah logs: 199 rows of 200, counted to 200 all the same."""
    dataset = rollout(domain, "standing")
    kept = np.flatnonzero(~dataset.timeouts)
    truth = ends_of(dataset)[kept]
    truth[:-1] |= np.diff(kept) > 1
    inferred = infer_timeouts(dataset.observations[kept], dataset.terminals[kept], 200, KINEMATICS[domain])
    assert np.array_equal(inferred > 0, truth & ~dataset.terminals[kept])
    assert tally(inferred) == {"by_data": dataset.timeouts.sum(), "by_count": 0, "by_both": 0}
    assert dataset.timeouts.sum() >= 4


def test_halfcheetah_of_999_rows():
    task = get_task("halfcheetah-random")
    dataset = roll_out(task, BehaviourPolicy.random(task, 0), 3_500, seed=0)
    kept = np.flatnonzero(~dataset.timeouts)
    inferred = infer_timeouts(dataset.observations[kept], dataset.terminals[kept], 1000, KINEMATICS["halfcheetah"])
    assert np.flatnonzero(inferred).tolist() == [998, 1997, 2996] and set(inferred) == {0, BY_DATA}
    whole = infer_timeouts(dataset.observations, dataset.terminals, 1000, KINEMATICS["halfcheetah"])
    assert np.flatnonzero(whole).tolist() == [999, 1999, 2999] and set(whole) == {0, BY_DATA | BY_COUNT}


@pytest.mark.parametrize("domain", DOMAINS)
def test_one_log_after_another(rollout, domain):
    """Each is cut anywhere: two rows after a reset, too, where the cut is hardest to see."""
    dataset = rollout(domain, "random")
    truth = ends_of(dataset)
    starts = np.flatnonzero(truth) + 1
    for cut in [*np.random.default_rng(0).integers(1, len(dataset), 20), starts[0] + 1, starts[1] + 2]:
        if truth[cut - 1]:
            continue
        both = np.concatenate([dataset.observations[:cut], dataset.observations])
        terminals = np.concatenate([dataset.terminals[:cut], dataset.terminals])
        ends = np.concatenate([truth[:cut], truth])
        ends[cut - 1] = True
        assert np.flatnonzero(breaks(both, KINEMATICS[domain]) != ends).tolist() == []
        timeouts = infer_timeouts(both, terminals, 200, KINEMATICS[domain]) > 0
        expected = ends & ~terminals
        expected[-1] = dataset.timeouts[-1]
        assert np.array_equal(timeouts, expected)


@pytest.mark.parametrize("domain", ["hopper", "walker2d"])
def test_rows_left_out_in_mid_episode(rollout, domain):
    """No reset on either side: position and velocity alone tell."""
    dataset = rollout(domain, "random")
    middle = int(np.argmax(dataset.episode_lengths()))
    start, stop = (edges[middle] for edges in dataset.episodes())
    assert stop - start >= 20
    kept = np.delete(np.arange(start, stop), np.arange(8, 14))
    assert np.flatnonzero(breaks(dataset.observations[kept], KINEMATICS[domain])).tolist() == [7]


@pytest.mark.parametrize("domain", DOMAINS)
def test_slices_change_nothing(rollout, domain):
    dataset = rollout(domain, "random")
    whole = breaks(dataset.observations, KINEMATICS[domain], rows_at_once=10**6)
    end = int(np.flatnonzero(whole)[0])
    for rows_at_once in (1, 2, 7, end, end + 1, end + 2, len(dataset) - 1, len(dataset)):
        assert np.array_equal(breaks(dataset.observations, KINEMATICS[domain], rows_at_once), whole)


def test_views_and_precision(rollout):
    dataset = rollout("halfcheetah", "random")
    wide = np.zeros((2 * len(dataset), 20), np.float32)
    wide[::2, 2:19] = dataset.observations
    view = wide[::2, 2:19]
    view.flags.writeable = False
    for observations in (view, dataset.observations.astype(np.float64), np.asfortranarray(dataset.observations)):
        assert np.array_equal(breaks(observations, KINEMATICS["halfcheetah"]), ends_of(dataset))


def test_memory_is_bounded():
    log = np.broadcast_to(np.float32(0.2), (1_000_000, 17))  # which takes no memory itself
    tracemalloc.start()
    found = breaks(log, KINEMATICS["halfcheetah"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == len(log) and not found.any()
    assert peak < 100e6  # as float64 at once the log would be 136 MB, and its differences as much again


# Where the truth is a formula: columns are position, x velocity, velocity.


def path(position, velocity):
    return np.column_stack([position, np.zeros_like(position), velocity])


def runs(*lengths):
    """Episodes that start at 0 and run at 0.5 m/s."""
    return np.concatenate([path(SPEED * LINE.timestep * np.arange(length), np.full(length, SPEED)) for length in lengths])


FAST_RESET = replace(LINE, jump=(0.1,))


def inferred(observations, max_episode_steps, terminals=()):
    flags = np.zeros(len(observations), bool)
    flags[list(terminals)] = True
    return infer_timeouts(observations, flags, max_episode_steps, FAST_RESET)


def test_free_fall():
    time = LINE.timestep * np.arange(60)
    fall = path(5 - 9.81 * time**2 / 2, -9.81 * time)
    assert not breaks(fall, LINE).any()
    assert np.flatnonzero(breaks(np.delete(fall, [30], axis=0), LINE)).tolist() == [29]
    assert np.flatnonzero(breaks(np.concatenate([fall, fall]), LINE)).tolist() == [59]


def test_sinusoid_is_off_by_its_formula():
    """Half a step on either side of sin's steepest point velocities are equal, and the way between them is longer."""
    half = 0.4
    phase = half * (2 * np.arange(-20, 20) + 1)
    wave = path(np.sin(phase), np.cos(phase) * 2 * half / LINE.timestep)
    most = 2 * np.sin(half) - 2 * half * np.cos(half)
    assert not breaks(wave, replace(LINE, spread=(0, 0), jump=(1.001 * most,))).any()
    assert breaks(wave, replace(LINE, spread=(0, 0), jump=(0.999 * most,)))[19]


def test_standing_still_after_a_reset():
    """Rows that all look like a reset follow one another, until one is off by more than `still`."""
    pose = np.concatenate([np.full(50, 0.02), np.full(50, -0.01), np.full(50, -0.015)])
    assert np.flatnonzero(breaks(path(pose, 0 * pose), LINE)).tolist() == [49]


def test_repeated_rows():
    still, moving = runs(1).repeat(5, axis=0), path(np.full(5, 3.0), np.full(5, 2.5))
    assert not breaks(path(np.full(5, 3.0), np.zeros(5)), LINE).any()
    assert not breaks(still, LINE).any()
    assert breaks(moving, LINE).tolist() == [True] * 4 + [False]  # 0.25 m a row that it does not go


def test_clipped_velocity_may_be_any_greater():
    position = 25 * LINE.timestep * np.arange(10)
    for sign in (1, -1):
        log = path(1 + sign * position, np.full(10, sign * 10.0))
        assert not breaks(log, replace(LINE, speed_limit=10.0)).any()
        assert breaks(log, LINE)[:-1].all()
        assert breaks(log[::-1], replace(LINE, speed_limit=10.0))[:-1].all()  # but not the other way


@pytest.mark.filterwarnings("error")
def test_what_is_not_finite_follows_nothing():
    log = runs(20)
    log[4, 0], log[9, 2], log[14] = np.nan, np.nan, np.inf
    assert np.flatnonzero(breaks(log, LINE)).tolist() == [3, 4, 8, 9, 13, 14]
    log[14], log[15] = 3e38, -3e38  # finite in float32, but not its differences
    assert np.flatnonzero(breaks(log.astype(np.float32), LINE)).tolist() == [3, 4, 8, 9, 13, 14, 15]


@pytest.mark.parametrize("rows", [0, 1])
def test_too_short_to_break(rows):
    assert breaks(np.zeros((rows, 3)), LINE).tolist() == [False] * rows
    assert inferred(np.zeros((rows, 3)), 10).tolist() == [0] * rows


def test_wrong_width():
    with pytest.raises(ValueError, match=r"expected \(rows, 11\)"):
        breaks(np.zeros((5, 17)), KINEMATICS["hopper"])


# Breaks and counts together.


def rows_and_bits(marks):
    return {int(row): int(marks[row]) for row in np.flatnonzero(marks)}


def test_short_and_full_episodes():
    both = BY_DATA | BY_COUNT
    assert rows_and_bits(inferred(runs(9, 9, 9), 10)) == {8: BY_DATA, 17: BY_DATA}
    assert rows_and_bits(inferred(runs(10, 10, 10), 10)) == {9: both, 19: both, 29: BY_COUNT}
    assert rows_and_bits(inferred(runs(10, 4, 10, 3), 10)) == {9: both, 13: BY_DATA, 23: both}


def test_a_missed_break_spoils_no_other():
    """The first boundary cannot be seen: counting puts one a row late, and the next found one sets it right."""
    assert rows_and_bits(inferred(runs(18, 9, 9), 10)) == {9: BY_COUNT, 17: BY_DATA, 26: BY_DATA}


def test_a_log_without_breaks_is_counted():
    assert rows_and_bits(inferred(runs(25), 10)) == {9: BY_COUNT, 19: BY_COUNT}


def test_terminals_are_no_timeouts():
    log = runs(5, 9, 10)
    assert rows_and_bits(inferred(log, 10, terminals=[4])) == {13: BY_DATA, 23: BY_COUNT}
    assert rows_and_bits(inferred(log, 10, terminals=[4, 13, 23])) == {}
    assert rows_and_bits(inferred(runs(25), 10, terminals=[4])) == {14: BY_COUNT, 24: BY_COUNT}  # a count restarts there, too


def test_without_kinematics_only_the_count():
    terminals = np.zeros(40, bool)
    terminals[[4, 17]] = True
    marks = infer_timeouts(runs(9, 9, 9, 13), terminals, 10)
    assert marks.dtype == np.uint8 and rows_and_bits(marks) == {14: BY_COUNT, 27: BY_COUNT, 37: BY_COUNT}


def test_observations_of_something_else():
    """Noise, or normalised columns: nearly nothing follows, so nothing can be found."""
    noise = np.random.default_rng(0).normal(size=(400, 11))
    assert breaks(noise, KINEMATICS["hopper"])[:-1].mean() > 0.95
    marks = infer_timeouts(noise, np.zeros(400, bool), 100, KINEMATICS["hopper"])
    assert rows_and_bits(marks) == dict.fromkeys((99, 199, 299, 399), BY_COUNT)


def test_tally():
    assert tally(inferred(runs(10, 4, 10, 10), 10)) == {"by_data": 1, "by_count": 1, "by_both": 2}
    assert tally(np.zeros(3, np.uint8)) == {"by_data": 0, "by_count": 0, "by_both": 0}


# What a file's flags and its next observations say, against one another.


def log_of(*lengths):
    """A log in v2's layout: observations, next observations that are each episode's own, and the truth (N,) bool."""
    parts = [runs(length + 1) for length in lengths]
    ends = np.zeros(sum(lengths), bool)
    ends[np.cumsum(lengths)[:-1] - 1] = True
    return np.concatenate([part[:-1] for part in parts]), np.concatenate([part[1:] for part in parts]), ends


def rows_at(*rows, of=30):
    flags = np.zeros(of, bool)
    flags[list(rows)] = True
    return flags


NOTHING = rows_at()


@pytest.mark.parametrize(
    ("marked", "disagreements"),
    [
        (NOTHING, {"unmarked": 2}),
        (rows_at(29), {"unmarked": 2}),  # as in D4RL's medium-replay of v2: the last row alone
        (rows_at(9, 22, 29), {}),
        (rows_at(9), {"unmarked": 1}),
        (rows_at(4, 29), {"unmarked": 2, "overruled": 1}),
        (rows_at(4, 9, 22), {"overruled": 1}),
        (rows_at(8, 21, 28), {"unmarked": 2, "overruled": 3}),  # each a row early
        (rows_at(10, 23), {"unmarked": 2, "overruled": 2}),  # and late
    ],
)
def test_next_observations_tell_whatever_the_flags_say(marked, disagreements):
    observations, following, truth = log_of(10, 13, 7)
    found = find_ends(observations, NOTHING, 1000, timeouts=marked, next_observations=following)
    assert np.flatnonzero(found.timeouts[:-1]).tolist() == np.flatnonzero(truth).tolist() == [9, 22]
    assert found.timeouts[-1] == marked[-1] and found.disagreements == disagreements
    assert np.flatnonzero(found.inferred).tolist() == sorted({9, 22} - set(np.flatnonzero(marked))) and not found.astray.any()


def test_terminals_stay_and_are_no_timeouts():
    observations, following, _ = log_of(10, 13, 7)
    found = find_ends(observations, rows_at(9), 1000, timeouts=NOTHING, next_observations=following)
    assert np.flatnonzero(found.timeouts).tolist() == [22] and found.disagreements == {"unmarked": 1}


def test_without_flags_next_observations_are_better_than_a_count():
    observations, following, _ = log_of(10, 13, 7)
    found = find_ends(observations, NOTHING, 8, next_observations=following)
    assert rows_and_bits(found.inferred) == {9: BY_DATA, 22: BY_DATA} and found.disagreements == {}
    found = find_ends(observations, NOTHING, 7, next_observations=following)
    assert rows_and_bits(found.inferred) == {9: BY_DATA, 22: BY_DATA, 29: BY_COUNT}  # what only the count can tell


def test_next_observations_filled_in_from_the_next_row_tell_nothing():
    """The flags stay, and across an end that next observation is nobody's successor; nor is it where physics finds an end."""
    observations, _, truth = log_of(10, 13, 7)
    filled = np.concatenate([observations[1:], observations[-1:]])
    found = find_ends(observations, rows_at(9), 1000, timeouts=rows_at(22), next_observations=filled)
    assert np.flatnonzero(found.timeouts).tolist() == [22] and found.disagreements == {}
    assert np.array_equal(found.astray, truth)
    found = find_ends(observations, rows_at(9), 1000, FAST_RESET, timeouts=NOTHING, next_observations=filled)
    assert np.flatnonzero(found.timeouts).tolist() == [22] and found.disagreements == {"unmarked": 1}
    assert np.array_equal(found.astray, truth)


def test_two_logs_that_were_filled_in_and_joined():
    observations, _, truth = log_of(5, 5, 5, 5, 10)
    filled = np.concatenate([observations[1:], observations[-1:]])
    filled[14] = observations[14]  # the end of the first
    found = find_ends(observations, NOTHING, 1000, timeouts=truth, next_observations=filled)
    assert np.array_equal(found.timeouts, truth) and found.disagreements == {}


def test_next_observations_of_shuffled_rows_tell_nothing():
    observations, following, _ = log_of(10, 13, 7)
    order = np.random.default_rng(0).permutation(30)
    found = find_ends(observations[order], NOTHING, 12, timeouts=rows_at(3), next_observations=following[order])
    assert np.flatnonzero(found.timeouts).tolist() == [3] and found.disagreements == {}
    counted = find_ends(observations[order], NOTHING, 12, next_observations=following[order])
    assert rows_and_bits(counted.inferred) == {11: BY_COUNT, 23: BY_COUNT}


def test_rounding_is_no_jump():
    observations, following, truth = log_of(10, 13, 7)
    nearly = np.nextafter(following.astype(np.float32), np.float32(9))
    assert np.array_equal(jumps(observations.astype(np.float32), nearly), truth)


def test_flags_of_a_log_without_next_observations_are_kept_and_doubted():
    observations, _, _ = log_of(10, 13, 7)
    found = find_ends(observations, NOTHING, 1000, FAST_RESET, timeouts=rows_at(4, 9))
    assert np.flatnonzero(found.timeouts).tolist() == [4, 9, 22] and found.disagreements == {"unmarked": 1, "doubted": 1}
    found = find_ends(observations, NOTHING, 1000, timeouts=rows_at(4, 9))
    assert np.flatnonzero(found.timeouts).tolist() == [4, 9] and found.disagreements == {}


def test_jumps_in_slices(monkeypatch):
    observations, following, truth = log_of(10, 13, 7)
    for rows in (1, 7, 10, 29, 30):
        monkeypatch.setattr(episodes, "_SLICE", rows)
        assert np.array_equal(jumps(observations, following), truth)


@pytest.mark.parametrize("provenance", [None, [], {}, {"flags": 3}, {"flags": {"unmarked": "many"}}, {"flags": {"more": 3}}])
def test_notes_of_what_a_record_may_hold(provenance):
    assert flag_notes(provenance) == []


def test_notes_count():
    (note,) = flag_notes({"flags": {"unmarked": 1019}})
    assert "does not mark" in note and note.endswith(": 1,019")
