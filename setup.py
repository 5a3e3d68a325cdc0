"""The folders stand at the top of the repository; installed they are `mopo_bench.*`, since `tasks` alone would collide.

Every folder with an `__init__.py` in these rooms is found, so that a new room is in the wheel. A wheel or an archive of sources
holds the name of the commit it was built from, for the records of runs.
"""

import runpy
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

COMMIT = runpy.run_path(str(Path(__file__).with_name("harness") / "runs" / "commit.py"))["commit"]()


def write_commit(root):
    """Writes COMMIT where `harness/runs/commit.py` below `root` finds it, and leaves none there that another build wrote."""
    file = Path(root, "harness", "runs", "COMMIT")
    file.unlink(missing_ok=True)
    if COMMIT:
        file.write_text(f"{COMMIT}\n", encoding="utf-8")


class Build(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:
            write_commit(Path(self.build_lib, "mopo_bench"))


class SourceArchive(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        write_commit(base_dir)


ROOMS = ("common", "tasks", "algorithms", "harness", "results")
found = find_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")])
setup(
    packages=["mopo_bench", *(f"mopo_bench.{name}" for name in found)],
    package_dir={"mopo_bench": "."},
    cmdclass={"build_py": Build, "sdist": SourceArchive},
)
