"""Packs the checkpoint of a collection that goes on on another machine, and unpacks it there.

    python results/collection/pack.py pack FOLDER PACKED
    python results/collection/pack.py unpack PACKED FOLDER

A packed checkpoint holds the actions in place of what came of them. Unpacking takes them again in the simulator, which on the
same kind of processor gives the same bytes; the digest tells where it does not. The policies and the curve go
along, snapshots do not.
"""

import hashlib
import sys
from pathlib import Path

import torch
from mopo_bench.common.errors import UserError
from mopo_bench.harness.collection.collect import Collection, OnlineTrainer
from mopo_bench.harness.runs.checkpoints import load_tensors, save_tensors
from mopo_bench.tasks.registry import all_tasks


def digest(state) -> str:
    found = hashlib.sha256(state["rows"].numpy().tobytes())
    for name in sorted(state["extras"]):
        found.update(state["extras"][name].numpy().tobytes())
    return found.hexdigest()


def trainer_of(state) -> OnlineTrainer:
    """A new trainer of the collection that the state is of."""
    identity = state["identity"]
    for task in all_tasks().values():
        plan = Collection(task, state["steps"], seed=identity["seed"], compiled=identity["compiled"])
        if plan.identity() == identity:
            return OnlineTrainer(plan)
    raise UserError(f"no task is collected as {identity}: unpack it with the version that packed it")


def pack(folder: Path, packed: Path) -> None:
    state = load_tensors(folder / "checkpoint.pt", "it cannot be packed")
    trainer = trainer_of(state)
    actions = trainer.layout.batch(state["rows"][None]).actions[0].clone()
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("*.npz")}
    files["curve.csv"] = (folder / "curve.csv").read_bytes()
    kept = {name: value for name, value in state.items() if name not in ("rows", "extras")}
    as_tensors = {name: torch.frombuffer(bytearray(content), dtype=torch.uint8) for name, content in files.items()}
    save_tensors(packed, {**kept, "actions": actions, "digest": digest(state), "files": as_tensors})
    print(f"{packed}: {state['steps']} steps, {packed.stat().st_size / 1e6:.1f} MB")


def unpack(packed: Path, folder: Path) -> None:
    state = load_tensors(packed, "it cannot be unpacked")
    trainer = trainer_of(state)
    trainer.repeat(state.pop("actions").numpy(), state["episode_ends"])
    wanted, files = state.pop("digest"), state.pop("files")
    state |= {name: trainer.state()[name] for name in ("rows", "extras")}
    if digest(state) != wanted:
        raise UserError(f"{packed}: this processor's simulator gives other numbers; go on where it was packed, or begin anew")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.numpy().tobytes())
    save_tensors(folder / "checkpoint.pt", state)  # last: a folder with it is whole
    print(f"{folder}: {state['steps']} steps")


if __name__ == "__main__":
    try:
        {"pack": pack, "unpack": unpack}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
    except UserError as error:
        sys.exit(str(error))
