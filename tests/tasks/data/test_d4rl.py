"""D4RL's files, fetched from a real server on this machine that does what servers and networks do."""

import hashlib
import io
import json
import random
import re
import shutil
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import h5py
import numpy as np
import pytest
from mopo_bench.common.errors import UserError
from mopo_bench.tasks.data.d4rl import (
    FileState,
    NotFetched,
    check_file,
    d4rl_path,
    fetch,
    files_of,
    sha256_of,
    sources,
    verify,
)
from mopo_bench.tasks.data.download import CHUNK, Patience
from mopo_bench.tasks.data.sources import DatasetRequest, load_dataset
from mopo_bench.tasks.registry import get_task
from mopo_bench.tasks.task import DataFile
from rich.console import Console
from rich.progress import Progress

SIZE = 10 * CHUNK
CONTENT = random.Random(0).randbytes(SIZE)
CHANGED = b"\x89HDF\r\n\x1a\n" + random.Random(1).randbytes(SIZE + 91)  # what upstream has in a year
GARBAGE = random.Random(2).randbytes(SIZE)
QUICK = Patience(connect=10.0, read=10.0, pauses=(0.01, 0.02, 0.03))
HASTY = replace(QUICK, read=0.3)  # for servers that stall; a machine that is busy may be this slow by itself
TRIES = len(QUICK.pauses) + 1


def sha256(content):
    return hashlib.sha256(content).hexdigest()


@dataclass
class Seen:
    path: str
    range: str | None
    time: float
    sent: int = 0


class Server(ThreadingHTTPServer):
    """Answers each request with the next function of its script, and ever after with the last."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.seen, self.let_go, self.scheme = [serve(CONTENT)], [], threading.Event(), "http"

    @property
    def url(self):
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def file(self):
        return DataFile("v0", f"{self.url}/offline_rl/gym_mujoco/hopper_random.hdf5", SIZE, sha256(CONTENT))

    def handle_error(self, request, client_address):
        """Clients that give up are what is tested."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.seen = Seen(self.path, self.headers.get("Range"), time.monotonic())
        self.server.seen.append(self.seen)
        script = self.server.script
        (script.pop(0) if len(script) > 1 else script[0])(self)

    def head(self, code, length=None, **headers):
        self.send_response(code)
        for key, value in (headers | ({} if length is None else {"Content-Length": length})).items():
            self.send_header(key.replace("_", "-"), str(value))
        self.end_headers()

    def body(self, content):
        self.seen.sent += len(content)  # before it is: whoever has received it all may ask at once
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def serve(content, until=None, ranges=True, **headers):
    """A server that knows Range; `until`: breaks off when it has sent the file up to this byte."""

    def answer(handler):
        start = 0
        if ranges and handler.seen.range:
            start = int(re.fullmatch(r"bytes=(\d+)-", handler.seen.range)[1])
            if start >= len(content):
                handler.head(416, 0, Content_Range=f"bytes */{len(content)}")
                return
            span = f"bytes {start}-{len(content) - 1}/{len(content)}"
            handler.head(206, len(content) - start, Content_Range=span, **headers)
        else:
            handler.head(200, len(content), **headers)
        handler.body(content[start:until])

    return answer


def answer(code, content=b"", **headers):
    def send(handler):
        handler.head(code, len(content), **headers)
        handler.body(content)

    return send


def stall(handler):
    """Half the file, then nothing until the test lets go."""
    handler.head(200, SIZE)
    handler.body(CONTENT[: SIZE // 2])
    handler.server.let_go.wait(20)


def reset(handler):
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.rfile.close()
    handler.connection.close()


@contextmanager
def serving():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.let_go.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def server():
    with serving() as running:
        yield running


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The cache's folder for D4RL, of this test alone; nobody's own files, no proxy."""
    monkeypatch.setenv("MOPO_BENCH_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", "d4rl")  # the server of the test, which stands for D4RL's own
    return tmp_path / "cache" / "d4rl"


def put(path, content=CONTENT):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def part_of(cache, file=None, wanted=CONTENT):
    return cache / "partial" / "hopper_random.hdf5" / f"{sha256(wanted)[:8]}.part"


def leftovers(cache):
    """What lies in the cache beside the file and its lock."""
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.name not in ("lock", "hopper_random.hdf5"))


def refused(match, *arguments, patience=QUICK, **options):
    with pytest.raises(UserError, match=match) as error:
        fetch(*arguments, patience=patience, **options)
    message = str(error.value)
    assert "\n" not in message and ("hopper_random.hdf5" in message or "--" in message)
    return message


def test_fetched_once(server, cache):
    path = fetch(server.file, patience=QUICK)
    assert path == cache / "hopper_random.hdf5" == d4rl_path(server.file) and path.read_bytes() == CONTENT
    assert verify(server.file) == FileState("verified", path, SIZE) and check_file(server.file, path) == "verified"
    assert fetch(server.file, patience=QUICK) == path
    assert [seen.range for seen in server.seen] == [None] and leftovers(cache) == []


def test_the_platforms_cache_is_used(server, tmp_path, monkeypatch):
    monkeypatch.delenv("MOPO_BENCH_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "platform"))
    monkeypatch.setenv("HOME", str(tmp_path))
    path = fetch(server.file, patience=QUICK)
    assert path.read_bytes() == CONTENT and path.is_relative_to(tmp_path) and path.parent.name == "d4rl"


def test_file_in_d4rls_own_folder_is_used(server, tmp_path):
    own = put(tmp_path / "own" / "hopper_random.hdf5")
    assert fetch(server.file) == own and server.seen == []


@pytest.mark.parametrize("folder", ["cache/d4rl", "own"])
@pytest.mark.parametrize("content", [GARBAGE, b"short", b""])
def test_bad_file_here_is_fetched_again(folder, content, server, tmp_path, cache):
    put(tmp_path / folder / "hopper_random.hdf5", content)
    path = fetch(server.file, patience=QUICK)
    assert path.parent == cache and path.read_bytes() == CONTENT and d4rl_path(server.file) == path


def test_broken_transfer_goes_on_where_it_stopped(server, cache):
    server.script = [serve(CONTENT, until=4 * CHUNK), serve(CONTENT, until=7 * CHUNK), serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    assert [seen.range for seen in server.seen] == [None, f"bytes={4 * CHUNK}-", f"bytes={7 * CHUNK}-"]
    assert sum(seen.sent for seen in server.seen) == SIZE and leftovers(cache) == []


def test_broken_always(server, cache):
    """A bounded number of tries with growing pauses; the next call resumes there."""
    server.script = [serve(CONTENT, until=4 * CHUNK), serve(CONTENT, until=0)]
    patience = replace(QUICK, pauses=(0.05, 0.15))
    refused(rf"broke off, 3 times; another fetch resumes after the {4 * CHUNK:,} bytes", server.file, patience=patience)
    first, second, third = (seen.time for seen in server.seen)
    assert second - first >= 0.05 and third - second >= 0.15
    assert not (cache / "hopper_random.hdf5").exists() and verify(server.file).status == "absent"
    server.script = [serve(CONTENT)]
    assert fetch(server.file).read_bytes() == CONTENT
    assert server.seen[-1].range == f"bytes={4 * CHUNK}-" and sum(seen.sent for seen in server.seen) == SIZE


def test_stall(server):
    server.script = [stall, serve(CONTENT)]
    assert fetch(server.file, patience=HASTY).read_bytes() == CONTENT
    assert server.seen[1].range == f"bytes={SIZE // 2}-"


def test_stall_always(server):
    server.script = [stall, lambda handler: handler.server.let_go.wait(20)]
    begun = time.monotonic()
    refused(r"nothing came for 0\.3 s, 4 times", server.file, patience=HASTY)
    assert time.monotonic() - begun < 10 and len(server.seen) == TRIES


def test_garbage_of_the_right_size(server, cache):
    server.script = [serve(GARBAGE)]
    message = refused("refused: SHA-256 .* was expected", server.file)
    expected, found = sha256(CONTENT), sha256(GARBAGE)
    assert f"{expected[:8]}…" in message and f"{found[:8]}…" in message and f"--accept-sha256 {found}" in message
    assert "changed upstream" in message and "--mirror" in message and expected not in message
    assert not (cache / "hopper_random.hdf5").exists() and leftovers(cache) == [] and len(server.seen) == 1
    server.script = [serve(CONTENT)]
    assert fetch(server.file).read_bytes() == CONTENT and server.seen[-1].range is None


def test_bad_file_here_stays_until_a_whole_one_comes(server, cache):
    path = put(cache / "hopper_random.hdf5", b"mine")
    server.script = [serve(GARBAGE)]
    refused("refused", server.file)
    assert path.read_bytes() == b"mine"


@pytest.mark.parametrize("known_length", [True, False])
def test_web_page(known_length, server, cache):
    page = b"<html>Please sign in</html>"

    def send(handler):
        handler.head(200, len(page) if known_length else None, Content_Type="text/html; charset=utf-8")
        handler.body(page)

    server.script = [send]
    refused(r"a web page .*where D4RL's has 327,680 bytes; name another source with --mirror", server.file)
    assert len(server.seen) == 1 and leftovers(cache) == []


@pytest.mark.parametrize("length", [SIZE + 10, SIZE - 10, 0, 10**15])
def test_size_that_contradicts_is_refused_before_the_transfer(length, server, cache):
    def send(handler):
        handler.head(200, length)
        handler.body(CONTENT)

    server.script = [send]
    refused(rf"{length:,} bytes where D4RL's has 327,680", server.file)
    assert len(server.seen) == 1 and leftovers(cache) == []


def test_total_of_a_range_that_contradicts(server, cache):
    put(part_of(cache), CONTENT[:CHUNK])
    server.script = [serve(CHANGED)]
    refused(f"{len(CHANGED):,} bytes where D4RL's has", server.file)
    assert part_of(cache).read_bytes() == CONTENT[:CHUNK]


def test_more_than_there_should_be(server, cache):
    """Without a length, and without an end that anybody waits for."""

    def send(handler):
        handler.head(200)
        for _ in range(200):
            handler.body(CONTENT)

    server.script = [send]
    refused("more than 327,680 bytes", server.file)
    assert leftovers(cache) == [] and server.seen[0].sent < 200 * SIZE


def test_no_length_at_all(server):
    def send(handler):
        handler.head(200)
        handler.body(CONTENT)

    server.script = [send]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize("code", [403, 404, 410])
def test_not_there(code, server, cache):
    server.script = [answer(code)]
    message = refused(rf"is not at http://127.*/gym_mujoco/hopper_random\.hdf5 \({code}\): name another source", server.file)
    assert len(server.seen) == 1 and str(cache) in message


@pytest.mark.parametrize("code", [204, 304, 400, 401, 418])
def test_other_answers_are_not_tried_again(code, server):
    server.script = [answer(code)]
    refused(f"the server answered {code}", server.file)
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", [429, 500, 503])
def test_trouble_of_the_server_passes(code, server):
    server.script = [answer(code), answer(code), serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT and len(server.seen) == 3


def test_trouble_of_the_server_stays(server):
    server.script = [answer(503, b"busy")]
    refused("answered 503, 4 times; another fetch may succeed later", server.file)
    assert len(server.seen) == TRIES


def test_server_that_ignores_range(server):
    server.script = [serve(CONTENT, until=4 * CHUNK), serve(CONTENT, ranges=False)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    assert server.seen[1].range == f"bytes={4 * CHUNK}-" and server.seen[1].sent == SIZE


def test_server_that_goes_on_at_another_place(server, cache):
    put(part_of(cache), CONTENT[:CHUNK])
    server.script = [answer(206, CONTENT, Content_Range=f"bytes 0-{SIZE - 1}/{SIZE}"), serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT and len(server.seen) == 2


def test_server_that_does_not_go_on(server, cache):
    put(part_of(cache), CONTENT[:CHUNK])
    server.script = [answer(416), serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    assert [seen.range for seen in server.seen] == [f"bytes={CHUNK}-", None]


@pytest.mark.parametrize("content, asked", [(GARBAGE, [None]), (GARBAGE[:CHUNK], [f"bytes={CHUNK}-", None]), (CHANGED, [None])])
def test_stale_part(content, asked, server, cache):
    """Of a file that has changed since, or longer than the file: begun again, unasked."""
    put(part_of(cache), content)
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    assert [seen.range for seen in server.seen] == asked and leftovers(cache) == []


def test_whole_part_needs_no_server(server, cache):
    put(part_of(cache))
    assert fetch(server.file).read_bytes() == CONTENT
    assert server.seen == [] and leftovers(cache) == []


def test_redirect(server):
    server.script = [answer(302, Location="/elsewhere"), serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    assert [seen.path for seen in server.seen] == ["/offline_rl/gym_mujoco/hopper_random.hdf5", "/elsewhere"]


@pytest.mark.parametrize("where, problem", [("/round", "redirects"), ("file:///etc/hostname", "file:///etc/hostname")])
def test_redirect_to_nowhere(where, problem, server):
    server.script = [answer(302, Location=where)]
    refused(f"{problem}.*name another source", server.file)


def test_connection_refused(cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/gym_mujoco/hopper_random.hdf5"
        refused("no connection, 4 times", DataFile("v0", url, SIZE, sha256(CONTENT)))
    assert leftovers(cache) == []


def test_reset(server):
    server.script = [reset, serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    server.script = [reset]
    refused("broke off, 4 times", replace(server.file, sha256=sha256(GARBAGE)))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_certificate_nobody_signed(server, tmp_path):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key", "-out", "cert", "-days", "2",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        cwd=tmp_path, check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    server.socket, server.scheme = context.wrap_socket(server.socket, server_side=True), "https"
    refused("certificate is not valid", server.file)
    assert server.seen == []


def test_too_little_room(server, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=SIZE - 1))
    refused("needs 327,680 bytes more, .* has 327,679 free: make room", server.file)
    assert server.seen == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_disk_that_fills_up(server, cache):
    part_of(cache).parent.mkdir(parents=True)
    part_of(cache).symlink_to("/dev/full")
    with pytest.raises(UserError, match="No space left on device; set MOPO_BENCH_DATA"):
        fetch(server.file, patience=QUICK)
    assert verify(server.file).status == "absent"


def test_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "cache").write_text("in the way")
    with pytest.raises(UserError, match="set MOPO_BENCH_DATA to a folder that can be written"):
        fetch(server.file, patience=QUICK)
    assert server.seen == []


FETCH = """
import sys
from mopo_bench.tasks.data.d4rl import fetch
from mopo_bench.tasks.data.download import Patience
from mopo_bench.tasks.task import DataFile

url, size, sha256 = sys.argv[1:]
print("ready", flush=True)
print(fetch(DataFile("v0", url, int(size), sha256), patience=Patience(10, 20, ())))
"""


def fetching(file):
    """Another process that fetches it, begun."""
    command = [sys.executable, "-c", FETCH, file.url, str(file.bytes), file.sha256]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until(condition):
    until = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_processes_fetch_once(server):
    def when_both_wait(handler):
        handler.server.let_go.wait(60)
        serve(CONTENT)(handler)

    server.script = [when_both_wait]
    other = fetching(server.file)
    assert other.stdout.readline() == "ready\n"
    with ThreadPoolExecutor() as threads:
        ours = threads.submit(fetch, server.file)
        wait_until(lambda: server.seen)
        time.sleep(0.3)
        server.let_go.set()
        path = ours.result()
    assert other.communicate(timeout=60)[0].strip() == str(path) and path.read_bytes() == CONTENT and len(server.seen) == 1


def test_going_on_after_a_kill(server, cache):
    server.script = [stall]
    killed = fetching(server.file)
    part = part_of(cache)
    wait_until(lambda: part.exists() and part.stat().st_size == SIZE // 2)
    killed.kill()
    killed.communicate()
    assert not (cache / "hopper_random.hdf5").exists()
    server.script = [serve(CONTENT)]
    assert fetch(server.file, patience=QUICK).read_bytes() == CONTENT
    assert [seen.range for seen in server.seen] == [None, f"bytes={SIZE // 2}-"] and leftovers(cache) == []


def test_offline(server, cache, tmp_path):
    message = refused("is not here, and --offline opens no connection", server.file, offline=True)
    assert str(cache) in message and "327,680 bytes" in message and sha256(CONTENT)[:8] in message
    refused("--offline", server.file, offline=True, mirror=server.url)
    bad = put(tmp_path / "own" / "hopper_random.hdf5", GARBAGE)
    refused(f"no use: {bad} has another checksum", server.file, offline=True)
    path = put(cache / "hopper_random.hdf5")
    assert fetch(server.file, offline=True) == path and server.seen == []


def test_offline_from_a_folder(server, tmp_path):
    put(tmp_path / "disk" / "hopper_random.hdf5")
    assert fetch(server.file, offline=True, mirror=str(tmp_path / "disk")).read_bytes() == CONTENT
    assert server.seen == []


@pytest.mark.parametrize("place", ["hopper_random.hdf5", "gym_mujoco/hopper_random.hdf5"])
def test_mirror_folder(place, server, tmp_path, cache):
    original = put(tmp_path / "disk" / place)
    path = fetch(server.file, mirror=str(tmp_path / "disk"))
    assert path.parent == cache and path.read_bytes() == original.read_bytes() == CONTENT
    assert server.seen == [] and leftovers(cache) == []


@pytest.fixture
def only_mirror(monkeypatch):
    """No source but the one that --mirror names."""
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", "")


@pytest.mark.parametrize(
    "content, problem",
    [(None, r"is not at .*disk/hopper_random\.hdf5 \(no such file\) nor at .*disk/gym_mujoco/hopper_random\.hdf5"),
     (b"short", "5 bytes where D4RL's has 327,680"), (GARBAGE, "SHA-256 .* was expected")],
)  # fmt: skip
def test_mirror_folder_is_verified(content, problem, server, tmp_path, cache, only_mirror):
    (tmp_path / "disk").mkdir()
    if content is not None:
        put(tmp_path / "disk" / "hopper_random.hdf5", content)
    refused(problem, server.file, mirror=str(tmp_path / "disk"))
    assert leftovers(cache) == [] and not (cache / "hopper_random.hdf5").exists()


def test_mirror_url(server):
    """MIRROR/name first, then as on D4RL's server; nothing else is asked."""
    file = replace(server.file, url="http://127.0.0.1:1/offline_rl/gym_mujoco_v2/hopper_random.hdf5")
    server.script = [answer(404), serve(CONTENT)]
    assert fetch(file, mirror=f"{server.url}/d4rl/", patience=QUICK).read_bytes() == CONTENT
    assert [seen.path for seen in server.seen] == ["/d4rl/hopper_random.hdf5", "/d4rl/gym_mujoco_v2/hopper_random.hdf5"]


def test_mirror_without_the_file(server, only_mirror):
    server.script = [answer(404)]
    message = refused(r"hopper_random\.hdf5 \(404\) nor at .*\(404\)", server.file, mirror=f"http://me:secret@{server.url[7:]}")
    assert len(server.seen) == 2 and "secret" not in message


@pytest.mark.parametrize(
    "mirror, problem",
    [("file:///etc", "http:// or https://"), ("ftp://mirror/d4rl", "http:// or https://"), ("http://", "http:// or https://"),
     ("http://[::1/", "http:// or https://"), ("", "no such folder"), ("nowhere", "no such folder"),
     ("x" * 5000, "no such folder"), ("~nobody-of-this-name/d4rl", "no such folder"),
     ("http://a..b", "Failed to parse"), ("http://127.0.0.1:99999", "Failed to parse")],
)  # fmt: skip
def test_mirror_that_is_none(mirror, problem, server, only_mirror):
    refused(problem, server.file, mirror=mirror)
    assert server.seen == []


@pytest.fixture
def mirrors():
    """Two more servers."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving()) for _ in range(2)]


NO_HELP = {
    "not there": answer(404),
    "broken": serve(CONTENT, until=4 * CHUNK),
    "garbage": serve(GARBAGE),
    "a web page": answer(200, b"<html>", Content_Type="text/html"),
    "out of order": answer(503),
    "forbidden to us": answer(401),
}


@pytest.mark.parametrize("trouble", NO_HELP)
def test_mirrors_are_asked_in_order_until_one_gives_the_file(trouble, server, mirrors, cache, monkeypatch):
    """--mirror, then the list, of which D4RL's own server may be one; what came of the file from one serves the next."""
    first, second = mirrors
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", f"d4rl {second.url}/d4rl")
    first.script, server.script = [NO_HELP[trouble]], [NO_HELP[trouble]]
    assert fetch(server.file, mirror=first.url, patience=QUICK).read_bytes() == CONTENT and leftovers(cache) == []
    places = ["/hopper_random.hdf5", "/gym_mujoco/hopper_random.hdf5"]  # the second is asked for where the first has nothing
    assert {seen.path for seen in first.seen} == set(places if trouble == "not there" else places[:1])
    assert {seen.path for seen in server.seen} == {"/offline_rl/gym_mujoco/hopper_random.hdf5"}
    assert [seen.path for seen in second.seen] == ["/d4rl/hopper_random.hdf5"]
    assert first.seen[-1].time < server.seen[0].time <= server.seen[-1].time < second.seen[0].time


def test_no_mirror_has_it(server, mirrors, monkeypatch):
    first, second = mirrors
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", f"{first.url} {second.url}")
    first.script, second.script = [answer(404)], [serve(GARBAGE)]
    message = refused("is refused: SHA-256 .* was expected", server.file)
    assert message.count(f"{first.url}/") == 2 and f"not at {first.url}/hopper_random.hdf5 (404)" in message
    assert len(second.seen) == 1 and server.seen == []


def test_what_no_mirror_can_help_stops_at_the_first(server, mirrors, monkeypatch):
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", mirrors[0].url)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1))
    with pytest.raises(UserError, match="make room") as error:
        fetch(server.file, mirror=mirrors[1].url, patience=QUICK)
    assert not isinstance(error.value, NotFetched) and mirrors[0].seen == mirrors[1].seen == []


def test_mirrors_that_are_none(server, monkeypatch):
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", "d4rl ftp://mirror")
    with pytest.raises(UserError, match=r"\$MOPO_BENCH_D4RL_MIRRORS: ftp://mirror: expected a URL"):
        fetch(server.file)
    monkeypatch.setenv("MOPO_BENCH_D4RL_MIRRORS", "")
    refused("not at any mirror, since none is named: name another source with --mirror", server.file)
    assert server.seen == []


def test_usual_mirrors(server, monkeypatch):
    """D4RL's own server and one more, which is asked for what that has under the same name."""
    monkeypatch.delenv("MOPO_BENCH_D4RL_MIRRORS")
    own, *others = sources(server.file, None)
    assert own == [server.file.url] and len(others) >= 1
    for place, _ in others:
        assert place.startswith("https://") and place.endswith("/hopper_random.hdf5")


def test_changed_file_is_taken_by_its_checksum_only(server, cache):
    server.script = [serve(CHANGED, until=2 * CHUNK), serve(CHANGED)]
    found = sha256(CHANGED)
    path = fetch(server.file, accept_sha256=found.upper(), patience=QUICK)
    assert path.read_bytes() == CHANGED and server.seen[1].range == f"bytes={2 * CHUNK}-"
    assert check_file(server.file, path) == "accepted" and verify(server.file) == FileState("accepted", path, len(CHANGED))
    for accept in (None, found):  # it is here
        assert fetch(server.file, accept_sha256=accept) == path and len(server.seen) == 2
    record = json.loads((cache / "hopper_random.hdf5.accepted.json").read_text())
    assert record.pop("date").startswith("20")
    assert record == {"name": "hopper_random.hdf5", "sha256": found, "bytes": len(CHANGED), "url": server.file.url}
    path.write_bytes(CHANGED[:-1] + b"!")
    with pytest.raises(UserError, match="has changed since it was accepted by its SHA-256"):
        check_file(server.file, path)
    assert verify(server.file).status == "wrong size"
    server.script = [serve(CONTENT)]
    assert check_file(server.file, fetch(server.file, patience=QUICK)) == "verified" and leftovers(cache) == []


def test_acceptance_of_another_file(server, cache):
    server.script = [serve(CHANGED)]
    message = refused("SHA-256 .* was to be accepted, and", server.file, accept_sha256=sha256(GARBAGE))
    assert f"{sha256(GARBAGE)[:8]}…" in message and f"{sha256(CHANGED)[:8]}…" in message
    server.script = [serve(CONTENT)]
    refused("is D4RL's own file: leave --accept-sha256 out", server.file, accept_sha256=sha256(GARBAGE))
    assert leftovers(cache) == [] and verify(server.file).status == "absent"


def test_accepting_d4rls_own_file_is_nothing_special(server, cache):
    path = fetch(server.file, accept_sha256=server.file.sha256.upper(), patience=QUICK)
    assert check_file(server.file, path) == "verified" and leftovers(cache) == []


def test_d4rls_own_file_is_kept(server, cache):
    path = put(cache / "hopper_random.hdf5")
    assert fetch(server.file, accept_sha256=sha256(CHANGED)) == path and path.read_bytes() == CONTENT and server.seen == []


def test_file_put_into_the_cache_by_hand_can_be_accepted(server, cache):
    path = put(cache / "hopper_random.hdf5", CHANGED)
    refused("no use: .* has 327,779 bytes where", server.file, offline=True)
    assert fetch(server.file, offline=True, accept_sha256=sha256(CHANGED)) == path and server.seen == []
    assert check_file(server.file, path) == "accepted"


def test_part_of_the_one_is_not_taken_for_the_other(server, cache):
    put(part_of(cache), CONTENT[: 2 * CHUNK])
    server.script = [serve(CHANGED)]
    fetch(server.file, accept_sha256=sha256(CHANGED), patience=QUICK)
    assert [seen.range for seen in server.seen] == [None] and leftovers(cache) == ["hopper_random.hdf5.accepted.json"]


def test_whole_part_of_an_accepted_file(server, cache):
    """Killed when the last byte had come: the server has no more, and says so."""
    put(part_of(cache, wanted=CHANGED), CHANGED)
    server.script = [serve(CHANGED)]
    assert fetch(server.file, accept_sha256=sha256(CHANGED), patience=QUICK).read_bytes() == CHANGED
    assert len(server.seen) == 1 and server.seen[0].sent == 0


def test_what_is_no_hdf5_is_not_accepted(server, cache):
    """Its checksum is what the refusal before it had printed, and the page of a server has one, too."""
    page = b"<html>We have moved.</html>"
    server.script = [serve(page)]
    assert "begins with b'<html>We'" in refused("no HDF5 file", server.file, accept_sha256=sha256(page))
    assert leftovers(cache) == [] and verify(server.file).status == "absent"
    put(cache / "hopper_random.hdf5", page)
    refused("no HDF5 file", server.file, offline=True, accept_sha256=sha256(page))
    assert verify(server.file).status == "wrong size"


@pytest.mark.parametrize("accept", ["", "yes", "0" * 63, "0" * 65, "g" * 64, "sha256:" + "0" * 64, "0" * 64 + "\n"])
def test_malformed_checksum(accept, server):
    with pytest.raises(UserError, match="64 hexadecimal digits"):
        fetch(server.file, accept_sha256=accept)
    assert server.seen == []


@pytest.mark.parametrize("record", ["", "[]", "{}", '{"name": "hopper_random.hdf5"}', '{"name": "x.hdf5", "sha256": "%s"}'])
def test_record_that_accepts_nothing(record, server, cache):
    path = put(cache / "hopper_random.hdf5", GARBAGE)
    put(cache / "hopper_random.hdf5.accepted.json", record.replace("%s", sha256(GARBAGE)).encode())
    assert verify(server.file).status == "wrong checksum"
    with pytest.raises(UserError, match="another checksum"):
        check_file(server.file, path)


def test_verify(server, cache, tmp_path, monkeypatch):
    file, path = server.file, cache / "hopper_random.hdf5"
    assert verify(file) == verify(file, hashing=False) == FileState("absent")
    for content, quick, whole in [
        (b"short", "wrong size", "wrong size"),
        (GARBAGE, "right size", "wrong checksum"),
        (CONTENT, "right size", "verified"),
    ]:
        put(path, content)
        assert verify(file, hashing=False) == FileState(quick, path, len(content))
        assert verify(file) == FileState(whole, path, len(content))
    put(path, CHANGED)
    fetch(file, accept_sha256=sha256(CHANGED))
    assert verify(file, hashing=False).status == verify(file).status == "accepted"
    path.unlink()
    path.mkdir()
    assert verify(file).status == "absent"
    monkeypatch.setenv("D4RL_DATASET_DIR", "x" * 5000)  # no folder can have this name
    assert verify(file).status == "unreadable"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="no file here that root cannot read")
def test_unreadable(server, cache):
    path = put(cache / "hopper_random.hdf5")
    path.unlink()
    path.symlink_to("/proc/self/mem")
    file = replace(server.file, bytes=0)
    assert verify(file) == FileState("unreadable", path, 0)
    with pytest.raises(UserError, match="cannot be read: fetch it again"):
        check_file(file, path)


def test_sha256_is_read_once(tmp_path, monkeypatch):
    path = put(tmp_path / "file")
    assert sha256_of(path) == sha256(CONTENT)
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert sha256_of(path) == sha256(CONTENT)
    monkeypatch.undo()
    path.write_bytes(b"another")
    assert sha256_of(path) == sha256(b"another")


def test_files_of():
    task = get_task("hopper-medium")
    assert [file.name for file in files_of(task)] == ["hopper_medium.hdf5"]
    assert [file.name for file in files_of(task, "v2")] == ["hopper_medium-v2.hdf5"]
    assert files_of(task, "all") == task.recipe.files
    with pytest.raises(UserError, match="expected v0, v2 or all"):
        files_of(task, "v1")
    with pytest.raises(UserError, match="ant-angle is not a task of D4RL"):
        files_of(get_task("ant-angle"))


def test_progress(server, capfd):
    """Quiet where there is no terminal; a bar of the caller's gets one line that reaches the end."""
    server.script = [serve(CONTENT, until=4 * CHUNK), serve(CONTENT)]
    bar = Progress(console=Console(file=io.StringIO(), force_terminal=True))
    fetch(server.file, progress=bar, patience=QUICK)
    assert [(line.description, line.completed, line.total) for line in bar.tasks] == [("hopper_random.hdf5", SIZE, SIZE)]
    d4rl_path(server.file).unlink()
    fetch(server.file, progress=True, patience=QUICK)
    assert capfd.readouterr() == ("", "")


def test_table_label_of_an_accepted_file(server, cache, tmp_path):
    """D4RL's v0 is only what D4RL published as v0."""
    generator = np.random.default_rng(0)
    with h5py.File(tmp_path / "changed", "w") as file:
        file["observations"] = generator.normal(size=(50, 11)).astype(np.float32)
        file["actions"] = generator.uniform(-1, 1, (50, 3)).astype(np.float32)
        file["rewards"] = np.ones(50, np.float32)
        file["terminals"] = file["timeouts"] = np.zeros(50, np.uint8)
    content = (tmp_path / "changed").read_bytes()
    server.script = [serve(content)]
    task = get_task("hopper-random")
    task = replace(task, recipe=replace(task.recipe, files=(server.file,)))
    fetch(server.file, accept_sha256=sha256(content), patience=QUICK)
    notes = load_dataset(task, DatasetRequest()).provenance
    assert (notes["label"], notes["source"]) == ("hopper-random@v0-changed", "v0-changed")
    assert "changed" in notes["from"] and sha256(content)[:8] in notes["from"]
    accepted = replace(server.file, bytes=len(content), sha256=sha256(content))
    task = replace(task, recipe=replace(task.recipe, files=(accepted,)))
    assert load_dataset(task, DatasetRequest()).provenance["label"] == "hopper-random@v0"
