"""What the README says is what the project does."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_every_published_folder_is_shown():
    published = {f"results/published/{path.name}" for path in (ROOT / "results" / "published").iterdir()}
    assert published == set(re.findall(r"<!-- table (\S+) -->", README))


def test_the_submission_check_runs_the_readme_s_test_command():
    command = "python -m pip install tox && python -m tox"
    assert f"```sh\n{command}\n```" in README
    assert command in (ROOT / ".ci" / "run").read_text()


def test_public_names_can_be_imported():
    import mopo_bench

    assert all(callable(getattr(mopo_bench, name)) for name in mopo_bench.__all__)
