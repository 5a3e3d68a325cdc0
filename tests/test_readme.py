"""What the README says is what the project does."""

import re
import shlex
from pathlib import Path

import pytest
import typer
from mopo_bench.harness.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_published_folder_is_shown():
    published = {f"results/published/{path.name}" for path in (ROOT / "results" / "published").iterdir()}
    pages = [README, *(page.read_text(encoding="utf-8") for page in (ROOT / "docs").glob("*.md"))]
    tables = [line for page in pages for line in re.findall(r"<!-- table .* -->", page)]
    assert published == {folder for line in tables for folder in re.findall(r"--results (\S+)", line)}


def test_the_submission_check_runs_the_readme_s_test_command():
    command = "python -m pip install tox && python -m tox"
    assert f"```sh\n{command}\n```" in README
    assert command in (ROOT / ".ci" / "run").read_text()


def test_public_names_can_be_imported():
    import mopo_bench

    assert all(callable(getattr(mopo_bench, name)) for name in mopo_bench.__all__)


def commands():
    """Every `mopo-bench ...` of README and docs, in a block of code or between backticks, as words."""
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        for line in re.findall(r"^(?: +- run: )?(mopo-bench .+)$", text, re.MULTILINE) + re.findall(
            r"`(mopo-bench [^`]+)`", text
        ):
            yield shlex.split(line, comments=True)


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_commands_and_their_options_exist(words):
    command, options = typer.main.get_command(app), [word.partition("=")[0] for word in words if word.startswith("--")]
    for word in words[1:]:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
    known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
    asks_the_whole = len(words) == 1 + len(options)  # `mopo-bench --version`
    assert not hasattr(command, "commands") or words[-1] == command.name or asks_the_whole, "there is no such command"
    assert set(options) <= known
