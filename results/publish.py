"""Copies run records into `results/published`: cells and records, which tables are made from, and no checkpoint.

    python results/publish.py FOLDER NAME [TASK/ALGORITHM[/IDENTITY] ...] [--below SEED]

FOLDER is one of `mopo-bench run`, NAME that of the published one, which is added to. Taken are runs that came to an end, those
that diverged among them: without these the means of an algorithm would be those of its lucky seeds. Others are named. Where
cells are named, only theirs are taken.
"""

import argparse
import shutil
from pathlib import Path

from mopo_bench import load

PUBLISHED = Path(__file__).parent / "published"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("cells", nargs="*")
    parser.add_argument("--below", type=int, default=10**9, help="only seeds below this one")
    asked = parser.parse_args()
    count = 0
    for run in load(asked.folder).runs.to_dict("records"):
        cell = Path(run["task"], run["algorithm"], run["identity"])
        named = not asked.cells or any(f"{cell}/".startswith(f"{each}/") for each in asked.cells)
        if not named or run["seed"] >= asked.below:
            continue
        if run["state"] not in ("done", "diverged"):
            print(f"not taken: {cell} seed {run['seed']}, {run['state']}: {run['reason']}")
        else:
            target = PUBLISHED / asked.name / cell
            for file in ("cell.json", f"seed-{run['seed']}/record.json"):
                (target / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(asked.folder / cell / file, target / file)
            count += 1
    print(f"{count} runs are in {PUBLISHED / asked.name}")


if __name__ == "__main__":
    main()
