"""The tasks that come with the package: the 12 of D4RL, halfcheetah-jump and ant-angle, and small ones for CI."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from importlib import resources
from typing import Any

import numpy as np

from .. import results
from . import rewards
from . import terminations as rules
from .data.behaviour_policies import FromBundledDataset, FromPolicies, from_random_policy
from .data.dataset import OfflineDataset
from .point_angle import HORIZON, point_angle_dataset
from .task import DataFile, Task

D4RL = "http://rail.eecs.berkeley.edu/datasets/offline_rl"
FOLDERS = {"v0": "gym_mujoco", "v2": "gym_mujoco_v2"}
# environment, sizes, termination, reference returns: D4RL's, from a random and an expert policy in the `*-v2` of 2020
DOMAINS = {
    "halfcheetah": ("HalfCheetah-v4", 17, 6, rules.never, (-280.178953, 12135.0)),
    "hopper": ("Hopper-v4", 11, 3, rules.hopper, (-20.272305, 3234.3)),
    "walker2d": ("Walker2d-v4", 17, 6, rules.walker2d, (1.629008, 4592.3)),
}
# of what D4RL made each batch, in order; hopper-medium-expert of v0 is expert and mixed
PROTOCOLS = {"random": ("random",), "medium": ("medium",), "mixed": ("mixed",), "medium-expert": ("medium", "expert")}
REGENERATED_FROM = {
    "random": "a randomly initialised policy",
    "medium": "this project's medium SAC",
    "mixed": "ten policies along this project's SAC, up to medium",
    "expert": "this project's best SAC",
    "replay": "ten policies along this project's SAC, relabelled",
}
ROWS = {"medium": 1_000_000, "expert": 1_000_000, "mixed": 200_920}  # of D4RL's parts; the one mixed part is hopper's


def d4rl_files() -> dict[str, tuple[DataFile, ...]]:
    """By task name: the files of v0 and v2, with sizes and checksums."""
    table = (resources.files(results) / "paper" / "d4rl_files.csv").read_text().splitlines()
    files: dict[str, tuple[DataFile, ...]] = {}
    for row in csv.DictReader(table):
        stem = row["file"].removesuffix(".hdf5").removesuffix("-v2")
        # v0 calls the replay buffer "mixed" and walker2d's file "walker_mixed"
        name = stem.replace("walker_", "walker2d_").replace("medium_replay", "mixed").replace("_", "-")
        url = f"{D4RL}/{FOLDERS[row['version']]}/{row['file']}"
        file = DataFile(row["version"], url, int(row["bytes"]), row["sha256"])
        files[name] = (*files.get(name, ()), file)
    return files


def point_angle_regenerated(task: Task, rows: int, seed: int) -> OfflineDataset:
    """The scripted runner's 100 episodes; `rows` cuts them, more than there are is not asked for."""
    arrays = point_angle_dataset(seed)
    valid = np.ones(len(arrays["rewards"]), bool)
    provenance = {"source": "regenerated", "task": task.name, "seed": seed, "policy": {"policy": "scripted runner"}}
    return OfflineDataset(**arrays, valid_next=valid, extras={}, provenance=provenance).head(rows)


def ant_angle_follows(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"termination": rules.ant(parameters["healthy_z_range"])}


def halfcheetah_jump_follows(parameters: Mapping[str, Any]) -> dict[str, Any]:
    return {"observation_size": 18 if parameters["observation"] == "torso" else 17}


def d4rl_tasks() -> list[Task]:
    files, tasks = d4rl_files(), []
    for quality, usual in PROTOCOLS.items():
        for domain, (environment, observation_size, action_size, termination, references) in DOMAINS.items():
            name = f"{domain}-{quality}"
            protocol = ("expert", "mixed") if name == "hopper-medium-expert" else usual
            recipe = FromPolicies(tuple((f"{domain}-{part}", ROWS[part]) for part in protocol if part != "random"))
            tasks.append(
                Task(
                    name=name,
                    environment=environment,
                    observation_size=observation_size,
                    action_size=action_size,
                    termination=termination,
                    reference_returns=references,
                    kinematics=domain,
                    files=files[name],
                    protocol=protocol,
                    regenerate=from_random_policy if quality == "random" else recipe,
                    regenerated_rows=200_000 if len(protocol) > 1 else 100_000,
                    regenerated_from=", then ".join(REGENERATED_FROM[part] for part in protocol),
                    regenerated_as="lite" if "mixed" in protocol else "regenerated",
                    paper_table="table1",
                )
            )
    return tasks


def catalogue() -> list[Task]:
    tasks = d4rl_tasks()
    # Table 2: z_init's noise alone moves a return by up to 1500, so 100 episodes; the authors' budget was 3000 epochs.
    tasks.append(
        Task(
            name="halfcheetah-jump",
            environment="mopo_bench/HalfCheetahJump-v0",
            observation_size=18,
            action_size=6,
            parameters={"height_weight": 15.0, "observation": "torso", "z_reference": "reset"},
            follows=halfcheetah_jump_follows,
            collected_under={"reward": "behaviour"},
            recorded=("x_velocity", "z", "z_init"),
            reward=rewards.halfcheetah_jump,
            protocol=("replay",),
            regenerate=FromPolicies((("halfcheetah-jump", 1),), collections=2),
            regenerated_from=REGENERATED_FROM["replay"],
            regenerated_as="lite",
            steps=3_000_000,
            paper_table="table2",
            evaluation_episodes=100,
        )
    )
    tasks.append(
        Task(
            name="ant-angle",
            environment="mopo_bench/AntAngle-v0",
            observation_size=27,
            action_size=8,
            termination=rules.ant((0.2, 1.0)),
            follows=ant_angle_follows,
            collected_under={"reward": "behaviour"},
            recorded=("x_velocity", "y_velocity", "contact_cost"),
            reward=rewards.ant_angle,
            protocol=("replay",),
            regenerate=FromPolicies((("ant-angle", 1),), collections=2),
            regenerated_from=REGENERATED_FROM["replay"],
            regenerated_as="lite",
            steps=3_000_000,
            parameters={"angle": 30.0, "survive_bonus": 1.0, "healthy_z_range": (0.2, 1.0)},
            paper_table="table2",
            evaluation_episodes=100,
        )
    )
    tasks.append(
        Task(
            name="point-angle",
            environment="mopo_bench/PointAngle-v0",
            observation_size=2,
            action_size=3,
            termination=rules.point_angle,
            max_episode_steps=HORIZON,
            regenerate=point_angle_regenerated,
            regenerated_rows=8_505,  # what the recipe's 100 episodes come to with seed 0
            regenerated_from="a scripted runner of growing skill",
            steps=8_000,
            evaluate_every=1_000,
            evaluation_episodes=20,
        )
    )
    tasks.append(
        Task(
            name="pendulum-mixed",
            environment="Pendulum-v1",
            observation_size=3,
            action_size=1,
            action_low=-2.0,
            action_high=2.0,
            max_episode_steps=200,
            regenerate=FromBundledDataset("pendulum-mixed"),
            regenerated_rows=5_000,
            regenerated_from="the replay buffer of this project's SAC",
            steps=8_000,
            evaluate_every=1_000,
            evaluation_episodes=20,
        )
    )
    return tasks
