"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .errors import WriteError


def replace_file(path: Path, write: Callable[[Path], object], before: Path | None = None) -> None:
    """`write` fills a temporary file beside `path`, which then takes its place; the folder is made where there is none.

    before: where the file is kept whose place is taken; whoever looks finds the old one or the new one, and never none.
    Raises WriteError where the system refuses any of it: a full disk, a folder that may not be written.
    """
    temporary, old = (path.with_name(f".{each.name}.{uuid.uuid4().hex}.part") for each in (path, before or path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())  # some disks say only now that they are full
        if before is not None and path.exists():
            _keep(path, old)
            os.replace(old, before)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        why = " ".join((refusal.strerror or str(refusal)).split())
        raise WriteError(f"{path}: cannot be written ({why}); check the folder, its permissions and free space") from error
    finally:
        for each in (temporary, old):
            with suppress(OSError):  # of a folder that is none
                each.unlink()


def _keep(path: Path, place: Path) -> None:
    """A second name of a file; a copy of it, where a disk has no such names."""
    try:
        os.link(path, place)
    except OSError:
        shutil.copy2(path, place)


def _refusal(error: BaseException | None) -> OSError | None:
    """What the system said; torch, closing an archive that was cut short, raises a RuntimeError over it."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def reserve(path: Path, size: int) -> None:
    """Has the disk keep `size` bytes for a file, where the system can promise that; OSError where there is no room.

    For writers that a full disk would kill: HDF5 crashes, a memory map is sent a signal. A writer that empties the file
    gives the room back: then this says no more than that there is enough now.
    """
    if hasattr(os, "posix_fallocate"):
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # not for appending: some file systems refuse that
        try:
            os.posix_fallocate(file, 0, size)
        finally:
            os.close(file)
