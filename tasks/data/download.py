"""Downloads or copies one file from one source, resumes where a transfer broke off, and says in one line what is wrong."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from ...common.errors import UserError
from ..task import DataFile

CHUNK = 1 << 15  # bytes; what a broken transfer loses at most
NOT_THERE = (403, 404, 410)  # object stores answer 403 for what they do not have

Report = Callable[[int, int | None], None]  # bytes that are here, bytes in all where that is known


@dataclass(frozen=True)
class Patience:
    """How long a transfer waits, in seconds: for a connection, for the next bytes, and before each further try."""

    connect: float = 10.0
    read: float = 30.0
    pauses: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0)


class _Broken(Exception):
    """A transfer failed that may succeed when it is tried again."""


class NotThere(Exception):
    """A source does not have the file; another one may."""


class SourceTrouble(UserError):
    """A source did not give the file; another one may."""


def bring(file: DataFile, source: str | Path, part: Path, size: int | None, patience: Patience, report: Report) -> None:
    """Completes the file `part` from one source: a URL is asked only for the bytes that `part` lacks.

    size: the number of bytes, where it is known; nothing else is verified here. Raises NotThere or SourceTrouble, or UserError
    where no other source would help.
    """
    if size is not None and part.exists() and part.stat().st_size > size:
        part.unlink()
    needed = (size or 0) - (part.stat().st_size if part.exists() else 0)
    if (free := shutil.disk_usage(part.parent).free) < needed:
        raise UserError(
            f"{file.name} needs {needed:,} bytes more, and {part.parent} has {free:,} free: make room there, "
            "or set MOPO_BENCH_DATA to a folder that has it"
        )
    if isinstance(source, Path):
        _copy(file, source, part, size, report)
        return
    for pause in (*patience.pauses, None):
        try:
            _resume(file, source, part, size, patience, report)
            return
        except _Broken as broken:
            if pause is None:
                here = part.stat().st_size if part.exists() else 0
                tries = f"{len(patience.pauses) + 1} times"
                later = f"resumes after the {here:,} bytes that are here" if here else "may succeed later"
                raise SourceTrouble(
                    f"{file.name} from {shown(source)}: {broken}, {tries}; another fetch {later}, "
                    "or name another source with --mirror"
                ) from None
            time.sleep(pause)


def _resume(file: DataFile, url: str, part: Path, size: int | None, patience: Patience, report: Report) -> None:
    """Makes one request for the bytes that `part` lacks, and appends them. Raises _Broken, NotThere, or UserError."""
    begun = part.stat().st_size if part.exists() else 0
    if begun and begun == size:
        return
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
    try:
        with requests.get(url, headers=headers, stream=True, timeout=(patience.connect, patience.read)) as answer:
            if answer.status_code == 416:  # the server has no byte beyond ours: ours is the whole, or of another file
                if size is None and answer.headers.get("Content-Range") == f"bytes */{begun}":
                    return
                part.unlink()
                raise _Broken("the server would not resume the transfer")
            begun, size = _begin(file, url, answer, begun, size)
            here = _append(file, url, answer.iter_content(CHUNK), part, begun, size, report)
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" not in str(error):
            raise _Broken("the transfer broke off") from None
        raise SourceTrouble(
            f"{file.name} from {shown(url)}: the server's certificate is not valid; name another source with --mirror"
        ) from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Broken(_cause(error, patience)) from None
    except (requests.RequestException, ValueError) as error:  # a URL that makes no sense may be a bare ValueError
        raise SourceTrouble(
            f"{file.name} from {shown(url)}: {' '.join(str(error).split())}; name another source with --mirror"
        ) from None
    if size is not None and here < size:
        raise _Broken(f"the transfer broke off at {here:,} of {size:,} bytes")


def _cause(error: requests.RequestException, patience: Patience) -> str:
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {patience.connect:g} s"
    if "timed out" in str(error):  # a stall within the body is a ConnectionError
        return f"nothing came for {patience.read:g} s"
    if "Failed to resolve" in str(error) or "NameResolutionError" in str(error):
        return "no such server can be found, there is no network or its name is wrong"
    return "no connection" if "Failed to establish" in str(error) else "the transfer broke off"


def _begin(file: DataFile, url: str, answer: requests.Response, begun: int, size: int | None) -> tuple[int, int | None]:
    """At which byte of the file the body of an answer begins, and the size of the whole file where it is known."""
    code, headers = answer.status_code, answer.headers
    if code in NOT_THERE:
        raise NotThere(str(code))
    if code >= 500 or code in (408, 429):
        raise _Broken(f"the server answered {code}")
    if code not in (200, 206):
        raise SourceTrouble(f"{file.name} from {shown(url)}: the server answered {code}; name another source with --mirror")
    stated: int | None
    if code == 206:
        start, whole = _range(headers.get("Content-Range", ""))
        if start != begun:
            raise _Broken("the server resumed at another byte than asked for")
        stated = whole
    else:
        length = headers.get("Content-Length", "")
        begun, stated = 0, int(length) if length.isdecimal() else None
    if size is not None and stated is None and "html" in headers.get("Content-Type", ""):
        raise _wrong_size(file, url, "a web page")
    if size is not None and stated not in (None, size):
        page = "a web page of " if "html" in headers.get("Content-Type", "") else ""
        raise _wrong_size(file, url, f"{page}{stated:,} bytes")
    return begun, size if stated is None else stated


def _range(header: str) -> tuple[int | None, int | None]:
    """The first byte and the total size in a Content-Range: "bytes 100-199/200" gives (100, 200)."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header)
    return (int(match[1]), int(match[2]) if match[2] != "*" else None) if match else (None, None)


def _wrong_size(file: DataFile, source: str | Path, found: str) -> SourceTrouble:
    return SourceTrouble(
        f"{file.name} from {shown(source)} is refused: {found} where D4RL's has {file.bytes:,} bytes; name another source "
        "with --mirror, or, if the file changed upstream, the SHA-256 that it is known to have with --accept-sha256"
    )


def _copy(file: DataFile, source: Path, part: Path, size: int | None, report: Report) -> None:
    def chunks() -> Iterator[bytes]:
        with _source_trouble(source), open(source, "rb") as original:
            while chunk := original.read(CHUNK):
                yield chunk

    with _source_trouble(source):
        if not source.is_file():
            raise NotThere("no such file")
        found = source.stat().st_size
    if size not in (None, found):
        raise _wrong_size(file, source, f"{found:,} bytes")
    _append(file, source, chunks(), part, 0, found, report)


@contextmanager
def _source_trouble(source: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceTrouble(f"cannot read {source}: {error.strerror or error}; name another source with --mirror") from None


def _append(
    file: DataFile, source: str | Path, chunks: Iterable[bytes], part: Path, begun: int, size: int | None, report: Report
) -> int:
    """Writes chunks to `part` from byte `begun` on; returns its size then. Raises UserError beyond `size` bytes in all."""
    report(begun, size)
    with open(part, "ab" if begun else "wb") as out:
        for chunk in chunks:
            begun += out.write(chunk)
            report(begun, size)
            if size is not None and begun > size:
                break
    if size is not None and begun > size:
        part.unlink()
        raise _wrong_size(file, source, f"more than {size:,} bytes")
    return begun


def download_bar() -> Progress:
    """A progress bar for `fetch`, on standard error; it draws nothing where that is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not console.is_terminal)


@contextmanager
def reporting(progress: bool | Progress, file: DataFile) -> Iterator[Report]:
    if progress is False:
        yield lambda here, whole: None
    elif progress is True:
        with download_bar() as bar, reporting(bar, file) as report:
            yield report
    else:
        line = progress.add_task(file.name, total=file.bytes)
        yield lambda here, whole: progress.update(line, completed=here, total=whole or file.bytes)


def shown(source: str | Path) -> str:
    """The source as messages show it: without the name and password that a URL may hold."""
    return re.sub("(?<=://)[^/]*@", "", str(source))
