"""Datasets as one shares them: in D4RL's or Minari's layout, with a card that says what they are and where they come from."""

from __future__ import annotations

import copy
import importlib.metadata
from contextlib import suppress
from pathlib import Path
from typing import Any

import gymnasium

from ...common.errors import UserError
from ...common.files import replace_file
from ...tasks.data.dataset import OfflineDataset
from ...tasks.data.episodes import flag_notes
from ...tasks.data.hdf5 import write_hdf5
from ...tasks.data.minari_layout import write_minari
from ...tasks.data.relabelling import relabelled_with
from ...tasks.task import Task

CARD = "README.md"
PACKAGES = ("mopo-bench", "numpy", "h5py", "gymnasium", "mujoco", "minari")
D4RL_LICENCE = "CC BY 4.0, as D4RL's: cite Fu et al. 2020, arXiv 2004.07219"
OWN_LICENCE = "MIT, as mopo-bench, from whose policies it was rolled out"


def export(dataset: OfflineDataset, task: Task | None, layout: str, out: Path, command: str) -> Path:
    """Writes the dataset and its card to the folder `out`, and returns the path of its HDF5 file.

    minari: `out` is a dataset of Minari's, out/data/main_data.hdf5 and out/data/metadata.json; d4rl: out/NAME.hdf5, where NAME
    is that of the folder. Raises UserError where there is such a dataset already, or it cannot be written.
    """
    name = out.resolve().name
    if task is None:  # the label is a path on this machine
        dataset = dataset.noting(label=dataset.provenance.get("file"))
    file = out / "data" / "main_data.hdf5" if layout == "minari" else out / f"{name}.hdf5"
    for path in (file.parent if layout == "minari" else file, out / CARD):
        if path.exists():
            raise UserError(f"{path} exists: name another folder with --out, or delete it")
    if layout == "minari":
        write_minari(dataset, file.parent, _metadata(dataset, task, name), _box(task), _specification(task))
    else:
        write_hdf5(dataset, file)
    replace_file(
        out / CARD, lambda partial: partial.write_text(card(dataset, task, layout, file.relative_to(out), name, command))
    )
    return file


def card(dataset: OfflineDataset, task: Task | None, layout: str, file: Path, name: str, command: str) -> str:
    """The dataset card, in Markdown: what is in the file, where it comes from, and what one must know to use it."""
    notes, facts = dataset.provenance, dataset.describe()
    returns = dataset.episode_returns()[dataset.whole_episodes()]
    spread = f" ± {returns.std(ddof=1):.1f}" if len(returns) > 1 else ""
    rows = {
        "source": notes.get("label"),
        "made from": notes.get("from") or notes.get("file"),
        "task": task and f"{task.name}: {task.environment} {_settings(task.parameters)}".strip(),
        "reward": f"relabelled with {relabelled}" if (relabelled := relabelled_with(dataset)) else "as it was logged",
        "collected by": notes.get("command") or _policies(notes),
        "window": notes.get("window") if notes.get("window") != "all" else None,
        "rows, episodes": f"{facts['rows']:,}, {facts['episodes']:,}",
        "return of an episode": f"{returns.mean():.1f}{spread}, from {returns.min():.1f} to {returns.max():.1f}",
        "normalised score": task and task.references and f"{task.references.score(float(returns.mean())):.1f}",
        "terminals, timeouts": f"{facts['terminals']:,}, {facts['timeouts']:,}",
        "rows whose next observation is not known": f"{facts['rows'] - facts['valid_next']:,}",
        "flags of the file it was read from": "; ".join(flag_notes(notes)),
        "stored besides": ", ".join(sorted(dataset.extras)),
        "SHA-256 of the arrays": dataset.digest(),
        "layout": {"minari": "Minari's, HDF5", "d4rl": "D4RL's v2, HDF5"}[layout],
        "exported by": f"`{command}`",
        "versions": ", ".join(_versions()),
        "licence": _licence(notes),
    }
    shown = {key: " ".join(str(value).split()).replace("|", "\\|") for key, value in rows.items() if value}
    table = [f"| {key} | {value} |" for key, value in shown.items()]
    use = f"mopo-bench run --tasks {task.name if task else 'TASK'} --algorithms mopo --dataset {file}"
    lines = [f"# {name}", "", "| | |", "|---|---|", *table, "", "```sh", use, "```", ""]
    if layout == "minari":
        lines += ["```python", 'minari.MinariDataset("data")', "```", ""]
        if facts["valid_next"] < facts["rows"]:
            stand_in = "the row's own observation stands in its place, and `infos/valid_next` is false"
            lines += [f"Where a next observation is not known, {stand_in}.", ""]
    return "\n".join(lines)


def _settings(parameters: Any) -> str:
    return f"({', '.join(f'{key}={value}' for key, value in parameters.items())})" if parameters else ""


def _policies(notes: dict[str, Any]) -> str:
    found = notes.get("policies")
    found = found if isinstance(found, list) else [notes.get("policy")]
    commands = {str(each.get("command") or each.get("policy") or "") for each in found if isinstance(each, dict)}
    return "; ".join(sorted(commands - {""}))


def _licence(notes: dict[str, Any]) -> str:
    source = str(notes.get("source"))
    if source.startswith(("v0", "v2")):
        return D4RL_LICENCE
    return "that of the file it was made from: say which before you share it" if source == "file" else OWN_LICENCE


def _versions() -> list[str]:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _box(task: Task | None) -> tuple[Any, Any]:
    return (task.problem.action_box.low, task.problem.action_box.high) if task else (-float("inf"), float("inf"))


def _specification(task: Task | None) -> Any:
    if task is None:
        return None
    with suppress(gymnasium.error.Error):  # of an id that only the owner's code registers
        specification = copy.deepcopy(gymnasium.spec(task.environment))
        specification.kwargs |= task.parameters
        return specification
    return None


def _metadata(dataset: OfflineDataset, task: Task | None, name: str) -> dict[str, Any]:
    """What Minari says of a dataset, by its own keys."""
    notes = dataset.provenance
    found: dict[str, Any] = {
        "dataset_id": name,
        "algorithm_name": _policies(notes),
        "description": f"{notes.get('label') or notes.get('file')}, exported by mopo-bench; see {CARD}",
    }
    if task is not None and task.references is not None:
        found |= {"ref_min_score": task.references.min, "ref_max_score": task.references.max}
    return found
