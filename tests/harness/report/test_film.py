"""Policies in pictures, drawn by MuJoCo itself in a process of its own, as the command does."""

import subprocess
import sys

import imageio.v3 as imageio
import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.harness.report import film
from mopo_bench.tasks.registry import get_task

COMMAND = (sys.executable, "-c", "from mopo_bench.harness.cli.main import main; main()", "render")


def render(*words):
    return subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def can_draw(tmp_path_factory):
    done = render("halfcheetah-medium", "--frames", 1, "--start", 0, "--out", tmp_path_factory.mktemp("film") / "one.png")
    if "MuJoCo needs EGL or OSMesa" in done.stderr:
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr


def test_strip_and_film(can_draw, tmp_path):
    words = ("halfcheetah-medium", "--frames", 3, "--start", 20, "--width", 160, "--height", 96)
    strip, moving = tmp_path / "strip.png", tmp_path / "film.gif"
    done = render(*words, "--out", strip)
    assert done.returncode == 0 and done.stdout.startswith(f"{strip}: 3 frames from step 20 on")
    picture = imageio.imread(strip)
    assert picture.shape == (96, 480, 3)
    frames = np.split(picture.astype(int), 3, axis=1)
    assert all(frame.std() > 20 for frame in frames)  # neither black nor blank
    assert all(np.abs(one - other).mean() > 1 for one, other in zip(frames, frames[1:], strict=False))  # and it moves
    assert render(*words, "--out", moving).returncode == 0
    assert imageio.imread(moving).shape[:3] == (3, 96, 160)


def test_the_floor_goes_on_where_a_policy_has_run_far(can_draw, tmp_path):
    words = ("halfcheetah-medium", "--frames", 1, "--start", 900, "--width", 160, "--height", 96, "--out", tmp_path / "far.png")
    assert render(*words).returncode == 0
    assert imageio.imread(tmp_path / "far.png")[-24:].astype(int).std() > 40  # its squares, not the grey that is below


def test_nothing_is_written_in_vain(can_draw, tmp_path):
    for words, why in (
        (("halfcheetah-medium", "--out", tmp_path / "film.avi"), "ends in one of .png"),
        (("hopper-random", "--out", tmp_path / "strip.png"), "no policy of its dataset is bundled"),
        (("hopper-medium", "--start", 990, "--out", tmp_path / "strip.png"), "the episode ended after"),
    ):
        done = render(*words)
        assert done.returncode == 2 and why in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_what_to_install(monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(film, "find_library", lambda name: None)
    with pytest.raises(UserError, match="install libegl1 or libosmesa6"):
        film.choose_renderer()
    monkeypatch.setattr(film, "find_library", {"OSMesa": "libOSMesa.so"}.get)
    assert film.choose_renderer() == "osmesa"


def test_no_environment_of_mujoco():
    with pytest.raises(UserError, match="cannot be drawn"):
        film.record(get_task("pendulum-mixed"), lambda seen: seen[:1], seed=0, start=0, stop=1, every=1, size=(16, 16))
