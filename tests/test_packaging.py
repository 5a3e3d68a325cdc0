"""What pyproject.toml allows is what is tried, and versions that stand twice agree."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from mopo_bench.harness.runs.commit import commit

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NOT_TRIED = {"torch"}  # its older releases come as CUDA builds of several GB


def pinned(name):
    """Versions by package of a file of constraints."""
    lines = (ROOT / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def test_the_lowest_versions_allowed_are_those_tried():
    tried, allowed = pinned("constraints-lowest.txt"), {}
    for requirement in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        name, lowest = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\w.]+)", requirement).groups()
        allowed[name] = lowest
    untried = {name: pinned("constraints.txt")[name] for name in NOT_TRIED}
    assert tried == allowed | untried


def test_commits_are_checked_by_the_same_ruff():
    hooks = re.findall(r"ruff==([\d.]+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert set(hooks) == {pinned("constraints.txt")["ruff"]}


def test_versions_agree():
    assert f"version: {PROJECT['version']}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="the tests are not in a repository")
def test_the_package_names_its_commit_also_where_it_is_installed():
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12"]
    assert commit().removesuffix("-dirty") == subprocess.check_output(command, text=True).strip()
