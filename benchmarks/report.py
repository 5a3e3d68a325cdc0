"""Makes results.json and results.md of a run of the benchmarks: python benchmarks/report.py RAW.json [--out FOLDER]

RAW.json is what pytest wrote with --benchmark-json. A quick run's table is shown, and written only where --out is given.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Part = dict[str, Any]

SCALES = {"s": 1.0, "ms": 1e3, "us": 1e6, "GB": 1.0}
BUSY = 0.95  # of a core; with less, other work was in the way

QUICK = "**A quick run: small sizes, few rounds. It shows that the benchmarks work; its numbers mean nothing.**"
NOTES = """\
- Both sides run in one process and in turns. Times are medians over the rounds. The ratio is taken round by round: its
  median, and in brackets its quartiles. Where a goal is a ratio, it is that of the part's first row.
- In parentheses: torch's setting of float32 matrix products, which holds for the whole process. *highest* is torch's
  default, under which the peers run as they come, with malloc as it comes, too; *medium* is what this package takes where
  that is still float32. Where this machine's is *medium* a peer has a second row under it, with this package's malloc.
- textbook: networks of `nn.Linear` one after another, plain autograd and Adam, numpy between the parts. ports: as public
  PyTorch ports of MOPO do it. Both are in `textbook.py`."""
FLOOR = """\
**The arithmetic floor**: the time that a step's matrix products would take at this machine's rate, which is that of
256 x 256 or of 512 x 512 products, whichever is faster, measured in the same rounds."""


def read(path: Path) -> dict[str, Any]:
    """The machine, and each part without what it repeats and without what names a host."""
    found = [each["extra_info"] for each in json.loads(path.read_text())["benchmarks"]]
    if not found:
        raise SystemExit(f"{path} holds no benchmark")
    machine = found[0]["machine"]
    return {
        "machine": machine,
        "parts": [rounded({key: value for key, value in each.items() if key != "machine"}) for each in found],
    }


def rounded(value: Any) -> Any:
    """Four digits: more are noise."""
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def reached(part: Part, quick: bool) -> str:
    goal = part["goal"]
    if not goal or quick:
        return ""
    if goal["of"] == "ratio":
        value = part["peers"][0]["ratio"]
        return "aim" if value >= goal["aim"] else "at least" if value >= goal["at_least"] else "no"
    value = part["ours"]["median"]
    return "aim" if value <= goal["aim"] else "at least" if value <= goal["at_least"] else "no"


def amount(seconds: float, unit: str) -> str:
    return f"{seconds * SCALES[unit]:.3g} {unit}"


def wanted(part: Part) -> str:
    goal = part["goal"]
    if not goal:
        return ""
    if goal["of"] == "ratio":
        return f"{goal['at_least']:g} / {goal['aim']:g}"
    return f"{amount(goal['at_least'], part['unit'])} / {amount(goal['aim'], part['unit'])}"


def times(part: Part, quick: bool) -> Iterator[Sequence[str]]:
    """The part's rows in the table: one for each peer and backend."""
    judged = (wanted(part), reached(part, quick))
    ours = f"{amount(part['ours']['median'], part['unit'])} ({part['ours']['backend']})"
    first = (part["part"], ours)
    if not part["peers"]:
        yield (*first, "", "", *judged)
    for index, peer in enumerate(part["peers"]):
        low, high = peer["ratio_quartiles"]
        theirs = f"{peer['name']}: {amount(peer['median'], part['unit'])} ({peer['backend']})"
        ratio = f"{peer['ratio']:.2f} [{low:.2f}, {high:.2f}]"
        yield (*first, theirs, ratio, *judged) if index == 0 else ("", "", theirs, ratio, "", "")


def floor(part: Part) -> Sequence[str]:
    found = part["floor"]
    least = found["flops"] / found["flops_per_second"]
    low, high = found["share"]["quartiles"]
    return (
        part["part"],
        f"{found['flops'] / 1e6:.0f} MFLOP",
        f"{part['peer_flops'] / 1e6:.0f} MFLOP" if "peer_flops" in part else "",
        f"{found['flops_per_second'] / 1e9:.0f} GFLOP/s",
        amount(least, part["unit"]),
        f"{found['share']['median']:.0%} [{low:.0%}, {high:.0%}]",
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [*("| " + " | ".join(line) + " |" for line in lines), ""]


def markdown(results: dict[str, Any]) -> str:
    machine, parts = results["machine"], results["parts"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    text = ["# What the parts take, beside a peer", "", *([QUICK, ""] if machine["quick"] else [])]
    text += [
        f"{machine['cpu_model']} ({machine['cpu']}), {machine['cores']} cores, {machine['system']}; threads of a process: "
        f"{machine['threads']}. Python {machine['python']}, {versions}, commit {machine['commit']}.",
        "",
        *table(
            ("Part", "Ours", "Peer", "Peer / ours", "At least / aim", "Reached"),
            [row for part in parts for row in times(part, machine["quick"])],
        ),
        NOTES,
        *business(machine, parts),
        "",
    ]
    if floors := [floor(part) for part in parts if part.get("floor")]:
        text += [FLOOR, "", *table(("Part", "Its products", "The peer's", "Rate", "Least time", "Floor / ours"), floors)]
    text += details(parts)
    included: dict[str, list[str]] = {}
    for part in parts:
        peer = f"; theirs: {part['peer_includes']}" if "peer_includes" in part else ""
        included.setdefault(f"ours: {part['ours_includes']}{peer}", []).append(part["part"])
    text += ["**What is timed**", "", *[f"- {', '.join(names)}: {what}." for what, names in included.items()]]
    return "\n".join(text) + "\n"


def business(machine: Part, parts: Sequence[Part]) -> Iterator[str]:
    """What other work the machine had."""
    if any(part.get("timer") == "process_time" for part in parts):
        yield "- Seconds of parts with a peer are those of the processor, not of the clock."
    shares = [part["share_of_a_core"] for part in parts if "share_of_a_core" in part]
    if shares and min(shares) < BUSY:
        had = f"this process had {min(shares):.0%} to {max(shares):.0%} of a core"
        yield f"- **The machine was busy with other work**: {had}, and the load before was {machine['load_before']}."


def details(parts: Sequence[Part]) -> list[str]:
    lines = []
    for part in parts:
        if fitted := part.get("fitted"):
            ours, peer = (
                f"{fitted[f'{side}_holdout_error']:.4g}"
                + f" [{', '.join(f'{error:.4g}' for error in fitted[f'{side}_holdout_error_by_seed'])}]"
                for side in ("ours", "peer")
            )
            epochs = " and ".join(f"{fitted[f'{side}_epochs']:g}" for side in ("ours", "peer"))
            lines.append(
                f"- {part['part']}: holdout error, in brackets by seed: ours {ours}, theirs {peer}, after {epochs} epochs."
            )
        if memory := part.get("memory"):
            lines.append(
                f"- {part['part']}: at most {memory['fit']:.2f} GB in the dynamics fit and {memory['training']:.2f} GB after "
                f"it; at the end {memory['own']:.2f} GB of its own and {memory['files']:.2f} GB of mapped files (libraries and "
                "the batch), which processes share."
            )
    return ["**More of them**", "", *lines, ""] if lines else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("raw", type=Path)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    results = read(options.raw)
    text = markdown(results)
    print(text)
    folder = options.out or (None if results["machine"]["quick"] else Path(__file__).parent)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (folder / "results.md").write_text(text)


if __name__ == "__main__":
    main()
