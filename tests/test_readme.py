"""What the README says is what the project does."""

import re
from pathlib import Path

from mopo_bench import table

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_demo_table_is_made_from_the_published_records():
    shown = re.search(r"<!-- demo table: .*? -->\n(.*?)\n<!-- end of demo table -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1).strip() == table("scores", ROOT / "results" / "published" / "demo", "markdown").strip()


def test_the_submission_check_runs_the_readme_s_test_command():
    command = "python -m pip install tox && python -m tox"
    assert f"```sh\n{command}\n```" in README
    assert command in (ROOT / ".ci" / "run").read_text()


def test_links_and_named_files_exist():
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
