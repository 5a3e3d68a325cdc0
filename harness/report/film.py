"""Pictures of a policy at work in MuJoCo: a strip of frames as in Figure 2 of the paper, or a film."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import contextmanager
from ctypes.util import find_library
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...common.errors import UserError
from ...common.files import replace_file

if TYPE_CHECKING:  # it imports MuJoCo, before which `choose_renderer` speaks
    from ...tasks.data.behaviour_policies import BehaviourPolicy

STILLS, FILMS = (".png", ".jpg", ".webp"), (".gif", ".mp4")
LIBRARIES = {"egl": "EGL", "osmesa": "OSMesa"}  # by which MuJoCo draws without a screen, the one on a GPU first
DISTANCE = 3.0  # m, of the camera from the torso


def choose_renderer() -> str:
    """Says to MuJoCo how to draw without a screen, which must be before its first import; gives the renderer's name.

    `MUJOCO_GL`, where the user has set it, is left as it is. Raises UserError where neither EGL nor OSMesa is installed.
    """
    if os.environ.get("MUJOCO_GL"):
        return os.environ["MUJOCO_GL"]
    for name, library in LIBRARIES.items():
        if find_library(library):
            os.environ["MUJOCO_GL"] = name
            return name
    raise UserError("MuJoCo needs EGL or OSMesa to draw without a screen: install libegl1 or libosmesa6 (Debian's names)")


def acting(
    name: str, results: Path, algorithm: str | None, seed: int, identity: str, file: Path | None, sampled: bool
) -> tuple[Any, Callable[[np.ndarray], np.ndarray]]:
    """The task, and a policy of a run or a file as a function from an observation to an action in the environment's units.

    Without either it is the one that made the task's dataset, or the last of them, sampled as it was; files of `data collect`
    hold such policies, too. Raises UserError where there is none.
    """
    from ...tasks.data.behaviour_policies import BehaviourPolicy
    from ...tasks.registry import get_task
    from ..runs.policies import load_policy

    task = get_task(name)
    if algorithm is None and file is None:
        behaviour = _behaviour(task)
    elif file is not None and _is_behaviour(file):
        behaviour = BehaviourPolicy.load(file)
    else:
        policy = load_policy(file) if file else load_policy(results, name, algorithm or "", seed, identity)
        generator = np.random.default_rng(seed)
        return task, lambda observation: policy(observation, sampled, generator)
    box, generator = task.problem.action_box, np.random.default_rng(seed)

    def act(observation: np.ndarray) -> np.ndarray:
        noise = generator.standard_normal((1, task.problem.action_size)).astype(np.float32) if sampled else None
        return box.from_unit(behaviour(observation[None], noise)[0])

    return task.as_collected(), act


def _is_behaviour(file: Path) -> bool:
    try:
        with np.load(file, allow_pickle=False) as found:
            return "weight_0" in found.files
    except (OSError, ValueError):
        return False  # `load_policy` says why


def _behaviour(task: Any) -> BehaviourPolicy:
    """The policy bundled for the task's dataset, of several the first."""
    from ...tasks.data.behaviour_policies import bundled_policy

    for name in getattr(task.recipe.regenerate, "files", ()):
        if name.endswith(".npz"):
            return bundled_policy(name.removesuffix(".npz"))
    raise UserError(f"{task.name}: no policy of its dataset is bundled; name one with --policy, or a run with --algorithm")


def record(
    task: Any, act: Callable[[np.ndarray], np.ndarray], *, seed: int, start: int, stop: int, every: int, size: tuple[int, int]
) -> tuple[list[np.ndarray], float]:
    """Frames (height, width, 3) uint8 of an episode at every `every` steps from `start` to `stop`, and the return until then.

    act: from an observation (obs,) to an action (act,) in the environment's units. size: width and height in pixels. The camera
    follows the torso from the side. Raises UserError for a task whose environment is none of MuJoCo's, and where the episode
    ends before its first frame.
    """
    from ...tasks.simulation import simulate

    environment = simulate(task)
    if not hasattr(environment.unwrapped, "model"):
        raise UserError(f"{task.name}: {task.environment} is no environment of MuJoCo, and cannot be drawn")
    frames, total = [], 0.0
    observation, _ = environment.reset(seed=seed)
    with _camera(environment.unwrapped, size) as picture:
        for step in range(stop):
            if step >= start and (step - start) % every == 0:
                frames.append(picture())
            observation, reward, terminated, truncated, _ = environment.step(act(np.asarray(observation, np.float32)))
            total += float(reward)
            if terminated or truncated:
                break
    if not frames:
        raise UserError(f"{task.name}: the episode ended after {step + 1} steps, before --start {start}")
    return frames, total


@contextmanager
def _camera(simulator: Any, size: tuple[int, int]) -> Any:
    import mujoco

    model = simulator.model
    floors = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE  # endless, but drawn for 40 m, which a fast policy leaves
    covers = model.geom_matid[floors]
    model.geom_size[floors, :2] *= 20
    model.mat_texrepeat[np.unique(covers[covers >= 0])] *= 20
    try:
        renderer = mujoco.Renderer(model, size[1], size[0])
    except Exception as error:  # each backend has errors of its own
        backend = os.environ.get("MUJOCO_GL", "a screen")
        raise UserError(f"MuJoCo cannot draw by {backend} ({error}): set MUJOCO_GL to egl or osmesa") from None
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(simulator.model, camera)
    camera.type, camera.trackbodyid = mujoco.mjtCamera.mjCAMERA_TRACKING, 1  # body 0 is the world
    camera.distance, camera.azimuth, camera.elevation = DISTANCE, 90.0, -15.0

    def picture() -> np.ndarray:
        renderer.update_scene(simulator.data, camera)
        return renderer.render()

    try:
        yield picture
    finally:
        renderer.close()


def write_film(path: Path, frames: list[np.ndarray], fps: int) -> None:
    """Writes frames side by side (.png, .jpg, .webp) or one after another (.gif, .mp4). Raises UserError for other suffixes."""
    if path.suffix not in (*STILLS, *FILMS):
        raise UserError(f"--out {path}: name a file that ends in one of {', '.join((*STILLS, *FILMS))}")
    if not find_spec("imageio"):
        raise UserError('pictures need imageio: pip install "mopo-bench[render]"')
    import imageio.v3 as imageio

    options: dict[str, Any] = {"extension": path.suffix}
    if path.suffix == ".gif":
        options |= {"duration": 1000 / fps, "loop": 0}
    elif path.suffix == ".mp4":
        if not find_spec("imageio_ffmpeg"):
            raise UserError(f'--out {path}: .mp4 needs imageio-ffmpeg: pip install "mopo-bench[render]", or write a .gif')
        options |= {"fps": fps, "plugin": "FFMPEG"}
    picture = np.concatenate(frames, axis=1) if path.suffix in STILLS else np.stack(frames)
    written = imageio.imwrite("<bytes>", picture, **options)
    replace_file(path, lambda temporary: temporary.write_bytes(written))
