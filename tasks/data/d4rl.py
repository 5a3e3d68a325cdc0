"""D4RL's files: finding them on this machine, verifying that they are what D4RL published, and downloading them."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import filelock
import platformdirs
from rich.progress import Progress

from ...common.errors import UserError
from ...common.files import replace_file
from ...common.settings import converted
from ..task import DataFile, Task
from .download import NotThere, Patience, Report, SourceTrouble, bring, reporting, shown
from .request import Version

# Where D4RL's files are, in the order in which they are asked: D4RL's own server, and a mirror that has those of v2 in its root
# under D4RL's names. Whoever has a file, it is D4RL's by its SHA-256.
OWN_SERVER = "d4rl"
MIRRORS = (OWN_SERVER, "https://huggingface.co/datasets/imone/D4RL/resolve/main")


class NotFetched(UserError):
    """One file that no source gave; the next one may be had."""


@dataclass(frozen=True)
class FileState:
    """The state of one file on this machine.

    status: "absent"; "verified", which is D4RL's by SHA-256; "accepted", which is another file that the user accepted by its
        SHA-256; "wrong size"; "wrong checksum"; "unreadable"; "right size", where nothing was hashed.
    path, bytes: None where there is no file.
    """

    status: str
    path: Path | None = None
    bytes: int | None = None


def cache_folder() -> Path:
    """The folder of everything that is downloaded or regenerated: $MOPO_BENCH_DATA, else the platform's cache folder."""
    return Path(os.environ.get("MOPO_BENCH_DATA") or platformdirs.user_cache_dir("mopo-bench"))


def d4rl_path(file: DataFile) -> Path | None:
    """The path of a D4RL file in our cache or in D4RL's own folder; None where it is in neither.

    No file of v0 has the name of one of v2.
    """
    own = Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")
    for path in (_place(file), own / file.name):
        with suppress(PermissionError):  # of a folder that may not be entered
            if path.is_file():
                return path
    return None


def files_of(task: Task, version: str = "v0") -> tuple[DataFile, ...]:
    """The task's files of "v0", "v2" or "all" versions. Raises UserError for another version, and for a task without files."""
    converted(version, Version, "--version")
    if not task.recipe.files:
        raise UserError(f"{task.name} is not a task of D4RL: it has no file to fetch; see `mopo-bench data list`")
    return tuple(file for file in task.recipe.files if version in (file.version, "all"))


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal. A process reads a file once, and again only where its size or mtime changed."""
    facts = path.stat()
    return _sha256(path, facts.st_size, facts.st_mtime_ns)


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    return _hashed(path)


def _hashed(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(file: DataFile, path: Path) -> str:
    """Says whether the file is D4RL's by size and SHA-256 ("verified") or one that the user accepted instead ("accepted").

    Raises UserError for any other file: only a verified file may have the paper's label in tables.
    """
    state = _state(file, path)
    if state.status in ("verified", "accepted"):
        return state.status
    raise UserError(f"{path} {_trouble(file, state)}: fetch it again, or name a file of your own with --dataset")


def verify(file: DataFile, *, hashing: bool = True) -> FileState:
    """The state of one file on this machine, see `FileState`. Raises nothing for a bad file.

    hashing: False is for quick listings; a file of D4RL's size is then "right size", and one of an accepted file's size
        "accepted".
    """
    try:
        path = d4rl_path(file)
    except OSError:  # a folder that may not be entered
        return FileState("unreadable", _place(file))
    return _state(file, path, hashing) if path else FileState("absent")


def _state(file: DataFile, path: Path, hashing: bool = True) -> FileState:
    size = None
    try:
        size = path.stat().st_size
        accepted = _acceptance(file, path)
        if not hashing:
            status = "accepted" if size == accepted.get("bytes") else "right size" if size == file.bytes else "wrong size"
        elif size == file.bytes and sha256_of(path) == file.sha256:
            status = "verified"
        elif accepted and sha256_of(path) == accepted["sha256"]:
            status = "accepted"
        else:
            status = "wrong size" if size != file.bytes else "wrong checksum"
    except OSError:
        status = "unreadable"
    return FileState(status, path, size)


def _trouble(file: DataFile, state: FileState) -> str:
    if state.status == "unreadable":
        return "cannot be read"
    if state.path and (accepted := _acceptance(file, state.path)):
        return f"has changed since it was accepted by its SHA-256 {_short(accepted['sha256'])}"
    if state.status == "wrong size":
        return f"has {state.bytes:,} bytes where D4RL's has {file.bytes:,}"
    return "has another checksum than D4RL's"


def _place(file: DataFile) -> Path:
    return cache_folder() / "d4rl" / file.name


def _record(path: Path) -> Path:
    return path.with_name(f"{path.name}.accepted.json")


def _acceptance(file: DataFile, path: Path) -> dict[str, Any]:
    """The record of an accepted file (name, sha256, bytes, date, url); empty where there is none, or it cannot be read."""
    try:
        record = json.loads(_record(path).read_text())
    except (OSError, ValueError):
        return {}
    whole = isinstance(record, dict) and record.get("name") == file.name and isinstance(record.get("sha256"), str)
    return record if whole else {}


def _accept(file: DataFile, sha256: str, path: Path, url: str) -> None:
    """Keeps a record of the file at `path`. UserError where it is no HDF5 file, such as the page of a server that is moved."""
    import h5py  # slow

    if not h5py.is_hdf5(path):
        with path.open("rb") as stream:
            start = stream.read(8)
        raise UserError(f"{file.name} from {url or path} is no HDF5 file, it begins with {start!r}: it is not accepted")
    date = datetime.now(UTC).isoformat(timespec="seconds")
    record = {"name": file.name, "sha256": sha256, "bytes": path.stat().st_size, "date": date, "url": url}
    replace_file(_record(_place(file)), lambda temporary: temporary.write_text(json.dumps(record, indent=1) + "\n"))


def fetch(
    file: DataFile,
    *,
    mirror: str | None = None,
    offline: bool = False,
    accept_sha256: str | None = None,
    progress: bool | Progress = False,
    patience: Patience = Patience(),  # noqa: B008 - immutable
) -> Path:
    """Downloads a file into the cache unless a good one is on this machine, and returns its path; a bad file is replaced.

    A transfer that breaks off, stalls or is answered with 5xx is tried again after each of `patience.pauses`, and resumes at
    the byte where it stopped, also in a later call. The file appears whole and verified or not at all. Of several processes
    that want it at the same time, one downloads it. Raises NotFetched where no source gives this file, and UserError where none
    could be fetched; one line that says what to do.

    mirror: a URL or a folder that is asked before $MOPO_BENCH_D4RL_MIRRORS, which are URLs and folders, too, with white space
        between them, or `MIRRORS` where that is not set; in both, "d4rl" is D4RL's own server. MIRROR/name is tried first, then
        MIRROR/gym_mujoco/name (for v2, MIRROR/gym_mujoco_v2/name), as on D4RL's server.
    offline: opens no connection; a mirror that is a folder may be used.
    accept_sha256: takes the file with exactly this SHA-256 in place of D4RL's. A record of it is stored with the file, by
        which `check_file` distinguishes the two. D4RL's own file, where it is on this machine, stays.
    progress: True draws a bar on a terminal, and nothing elsewhere; a `rich` bar gets one more line.
    """
    if accept_sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", accept_sha256):
        raise UserError(f"--accept-sha256 {accept_sha256}: expected 64 hexadecimal digits, as `sha256sum FILE` prints them")
    accept = accept_sha256.lower() if accept_sha256 else None
    if accept == file.sha256:  # nothing to accept
        accept = None
    asked = sources(file, mirror)
    if offline:
        asked = [places for places in asked if isinstance(places[0], Path)]
    path = _place(file)
    work = path.parent / "partial" / file.name  # of this file alone: its lock, and what has come so far
    with cache_trouble(path.parent):
        if here := _here(file, accept):
            return here
        if offline and not asked:
            state = verify(file)
            here_is = "is not here" if state.path is None else f"is no use: {state.path} {_trouble(file, state)}"
            raise NotFetched(
                f"{file.name} {here_is}, and --offline opens no connection: put it into {path.parent} ({file.bytes:,} bytes, "
                f"SHA-256 {_short(file.sha256)}), or name a folder that has it with --mirror"
            )
        work.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(work / "lock"):
            if here := _here(file, accept):  # another process was first
                return here
            with reporting(progress, file) as report:
                _retrieve(file, asked, work, accept, patience, report)
    return path


def _here(file: DataFile, accept: str | None) -> Path | None:
    """A good file on this machine; None where there is none. One in the cache that has the checksum `accept` is accepted."""
    state = verify(file)
    if state.path is None or state.status == "unreadable":
        return None
    if state.status == "verified" or (state.status == "accepted" and accept in (None, sha256_of(state.path))):
        return state.path
    if accept is not None and state.path == _place(file) and sha256_of(state.path) == accept:
        _accept(file, accept, state.path, "")
        return state.path
    return None


def sources(file: DataFile, mirror: str | None) -> list[list[str | Path]]:
    """The places where each mirror may have the file, in the order in which they are asked."""
    named = os.environ.get("MOPO_BENCH_D4RL_MIRRORS")
    found: list[list[str | Path]] = [] if mirror is None else [_places(file, mirror, "--mirror")]
    for other in MIRRORS if named is None else named.split():
        found.append([file.url] if other == OWN_SERVER else _places(file, other, "$MOPO_BENCH_D4RL_MIRRORS:"))
    return found


def _places(file: DataFile, mirror: str, named_by: str) -> list[str | Path]:
    """Where a mirror, which is a URL or a folder, may have the file."""
    places = (file.name, "/".join(file.url.rsplit("/", 2)[1:]))
    if "://" in mirror:
        try:
            parts = urlsplit(mirror)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme.lower() not in ("http", "https") or not parts.hostname:
            raise UserError(f"{named_by} {shown(mirror)}: expected a URL with http:// or https://, or a local folder")
        return [f"{mirror.rstrip('/')}/{place}" for place in places]
    folder = Path(os.path.expanduser(mirror))
    if not mirror or not os.path.isdir(folder):  # which, unlike Path's, take any text
        raise UserError(f"{named_by} {mirror}: there is no such folder; give a folder, or a URL with http:// or https://")
    return [folder / place for place in places]


def _retrieve(
    file: DataFile, asked: list[list[str | Path]], work: Path, accept: str | None, patience: Patience, report: Report
) -> None:
    """Brings the file from the first source that gives it, and puts it into its place once its SHA-256 is the wanted one."""
    wanted = accept or file.sha256
    part = work / f"{wanted[:8]}.part"
    missing, troubles = [], []
    for places in asked:
        for source in places:
            try:
                _bring_verified(file, source, part, accept, patience, report)
            except NotThere as error:
                missing.append(f"{shown(source)} ({error})")
                continue
            except SourceTrouble as error:
                troubles.append(str(error))
                break
            path = _place(file)
            if accept:
                try:
                    _accept(file, accept, part, shown(source))
                except UserError:
                    part.unlink()
                    raise
            os.replace(part, path)
            if not accept:
                _record(path).unlink(missing_ok=True)
            for rest in work.glob("*.part"):
                rest.unlink()
            return
    if missing or not asked:
        where = " nor at ".join(missing) if missing else "any mirror, since none is named"
        troubles.append(
            f"{file.name} is not at {where}: name another source with --mirror (a URL or a folder), "
            f"or put the file into {_place(file).parent}"
        )
    raise NotFetched("; ".join(troubles))


def _bring_verified(
    file: DataFile, source: str | Path, part: Path, accept: str | None, patience: Patience, report: Report
) -> None:
    """Makes `part` the wanted file, or deletes it and raises what `bring` raises."""
    wanted = accept or file.sha256
    size = None if accept else file.bytes  # of a changed file nobody knows it before
    resumed = part.exists()
    bring(file, source, part, size, patience, report)
    if resumed and _hashed(part) != wanted:  # begun from another source, or before the file changed
        part.unlink()
        bring(file, source, part, size, patience, report)
    if (found := _hashed(part)) != wanted:
        part.unlink()
        raise _refusal(file, source, found, accept)


def _refusal(file: DataFile, source: str | Path, found: str, accept: str | None) -> UserError:
    expected = f"SHA-256 {_short(accept or file.sha256)} was {'to be accepted' if accept else 'expected'}"
    what = f"{file.name} from {shown(source)} is refused: {expected}, and {_short(found)} came"
    if found == file.sha256:
        return UserError(f"{what}, which is D4RL's own file: leave --accept-sha256 out")
    return SourceTrouble(
        f"{what}: the transfer was damaged, or the file changed upstream; fetch it again or name another source with --mirror, "
        f"or take exactly this file, which tables then label as changed, with --accept-sha256 {found}"
    )


def _short(sha256: str) -> str:
    return f"{sha256[:8]}…"


@contextmanager
def cache_trouble(folder: Path) -> Iterator[None]:
    """Raises UserError for an OSError within, and says what to do."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot keep datasets in {folder}: {error.strerror or error}; set MOPO_BENCH_DATA to a folder that can be written"
        ) from None
