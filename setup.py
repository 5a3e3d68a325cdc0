"""The folders stand at the top of the repository; installed they are `mopo_bench.*`, since `tasks` alone would collide.

Every folder with an `__init__.py` in these rooms is found, so that a new room is in the wheel.
"""

from setuptools import find_packages, setup

ROOMS = ("common", "tasks", "algorithms", "harness", "results")
found = find_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")])
setup(packages=["mopo_bench", *(f"mopo_bench.{name}" for name in found)], package_dir={"mopo_bench": "."})
