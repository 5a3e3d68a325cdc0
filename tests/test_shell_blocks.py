"""Every block of shell in README and docs runs as it stands, or says in a comment above it why it is not run here."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+) -->\n)?^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page):
    """(why it is not run, or "", and the block) for each of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


RUN = {page.stem: [text for reason, text in blocks(page) if not reason] for page in PAGES}


def test_all_of_a_page_are_found():
    for page in PAGES:
        assert len(blocks(page)) == len(re.findall(r"^ *```(?:sh|bash|shell|console)$", page.read_text(), re.MULTILINE)), (
            page.name
        )
    assert {name for name, texts in RUN.items() if texts} >= {"quickstart", "running", "tables"}


@pytest.mark.parametrize("text", [text for page in PAGES for _, text in blocks(page)], ids=lambda text: text.split("\n")[0])
def test_it_is_shell(text):
    assert subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=True).stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, texts in RUN.items() if texts])
def test_it_runs(name, tmp_path, data_folder):
    """The blocks of a page one after another, in a folder with the published records, with this package's command."""
    command = tmp_path / "bin" / "mopo-bench"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom mopo_bench.harness.cli.main import main\nmain()\n")
    command.chmod(0o755)
    place = tmp_path / "place"
    place.mkdir()
    (place / "results").symlink_to(ROOT / "results")
    script = "\n".join(["set -euo pipefail", *RUN[name]])
    environment = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True, cwd=place, env=environment, timeout=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    named = set(re.findall(r"--out (\S+)", script))
    assert all((place / each).exists() for each in named) and not (place / "results" / "runs").exists()
