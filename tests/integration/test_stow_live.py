"""STOW-RS over real connections to a real gunicorn, by foreign and by badly behaved clients."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from factories import ct_series
from http_process import LiveServer, live_server
from pydicom.dataset import Dataset
from stow_bodies import RELATED, chunked, multipart, part10

from domain.errors import ConfigurationError
from gateway.http import HttpSettings, create_app
from gateway.http_server import serve

CURL = shutil.which("curl")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Talk to our own servers directly, whatever this machine's environment says."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kept")


@pytest.fixture(scope="module")
def module_server(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with live_server(tmp_path_factory.mktemp("live"), "--sink", str(kept), "--idle-timeout", "1") as server:
        yield server


@pytest.fixture
def server(module_server: LiveServer, kept: Path) -> LiveServer:
    """The server with nothing kept yet."""
    for file in kept.iterdir():
        file.unlink()
    return module_server


def kept_files(kept: Path) -> list[bytes]:
    return [file.read_bytes() for file in sorted(kept.glob("*.kept"))]


def request_head(*headers: str, content_type: str = RELATED) -> bytes:
    lines = ("POST /dicomweb/studies HTTP/1.1", "Host: gateway", f"Content-Type: {content_type}", *headers)
    return "\r\n".join((*lines, "", "")).encode()


def exchange(port: int, *pieces: bytes, then: Callable[[socket.socket], None] | None = None) -> bytes:
    """Send ``pieces`` on a connection of their own; return everything that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        for piece in pieces:
            connection.sendall(piece)
        if then is not None:
            then(connection)
        answer = b""
        while data := connection.recv(65536):
            answer += data
        return answer


def end_sending(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_WR)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def test_a_body_with_content_length_is_stored(server: LiveServer, kept: Path) -> None:
    files = [part10(dataset) for dataset in ct_series(3)]
    answer = requests.post(server.studies, data=multipart(files), headers={"Content-Type": RELATED}, timeout=10)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom+json"
    assert kept_files(kept) == files


@pytest.mark.parametrize("sizes", [(1,), (7, 1, 4096, 2), (100_000,)])
def test_a_chunked_body_is_stored(server: LiveServer, kept: Path, sizes: tuple[int, ...]) -> None:
    files = [part10(dataset) for dataset in ct_series(2)]
    body = b"".join(chunked(multipart(files), sizes))
    answer = exchange(server.port, request_head("Transfer-Encoding: chunked", "Connection: close"), body)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert kept_files(kept) == files


def test_a_client_that_waits_for_100_continue_gets_it(server: LiveServer, kept: Path) -> None:
    body = multipart([b"one"])
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request_head(f"Content-Length: {len(body)}", "Expect: 100-continue", "Connection: close"))
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert kept_files(kept) == [b"one"]


@pytest.mark.parametrize(
    "cut", [1, 30, -1, -2, -20], ids=["in the delimiter", "in a header", "last byte", "last two", "in a part"]
)
@pytest.mark.parametrize("transfer", ["length", "chunked"])
def test_a_body_that_is_cut_off_stores_nothing(server: LiveServer, kept: Path, cut: int, transfer: str) -> None:
    body = multipart([b"one", b"a longer second part of the body"])
    if transfer == "length":
        head, sent = request_head(f"Content-Length: {len(body)}"), body[:cut]
    else:
        # The last chunk never comes.
        head, sent = request_head("Transfer-Encoding: chunked"), b"".join(chunked(body[:cut], (10,)))[:-5]
    answer = exchange(server.port, head, sent, then=end_sending)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"cut off" in answer
    assert not list(kept.iterdir())


def test_a_connection_that_breaks_leaves_nothing_behind(server: LiveServer, kept: Path) -> None:
    body = multipart([b"one", b"x" * 5_000_000])
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.sendall(request_head(f"Content-Length: {len(body)}") + body[:1_000_000])
    wait_until(lambda: len(list(kept.glob("*.staged"))) == 2)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by RST
    connection.close()
    wait_until(lambda: not list(kept.iterdir()))


@pytest.mark.parametrize("wrong", [-1, -20, 5])
def test_a_wrong_content_length_stores_nothing(server: LiveServer, kept: Path, wrong: int) -> None:
    body = multipart([b"one", b"two"], epilogue=b"\r\n" if wrong > 0 else b"")
    head = request_head(f"Content-Length: {len(body) + wrong}", "Connection: close")
    answer = exchange(server.port, head, body, then=end_sending)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not list(kept.iterdir())


def test_a_wrong_chunk_size_stores_nothing_and_is_not_repeated_in_the_log(server: LiveServer, kept: Path) -> None:
    body = multipart([b"one"])
    broken = f"{len(body):x}\r\n".encode() + body + b"\r\nCANARY^PHI\r\n"
    answer = exchange(server.port, request_head("Transfer-Encoding: chunked"), broken)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not list(kept.iterdir())
    assert "CANARY" not in server.log.read_text()


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET /?PatientName=CANARY HTTP/9.9",
        b"CANARY",
        b"GET /x HTTP/1.1\r\nCANARY name: x",
        b"POST /CANARY^PHI HTTP/1.1",
    ],
)
def test_a_senseless_request_is_refused_and_not_repeated_in_the_log(server: LiveServer, request_line: bytes) -> None:
    answer = exchange(server.port, request_line + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 4")
    assert "CANARY" not in server.log.read_text()


def test_a_peer_that_stands_still_is_given_up(server: LiveServer, kept: Path) -> None:
    start = time.monotonic()
    answer = exchange(server.port, request_head("Content-Length: 5000"), multipart([b"one"])[:-2])
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert 0.9 < time.monotonic() - start < 8
    assert not list(kept.iterdir())


def test_an_upload_may_take_longer_than_the_idle_timeout(server: LiveServer, kept: Path) -> None:
    body = multipart([b"slow"])
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request_head(f"Content-Length: {len(body)}", "Connection: close"))
        for start in range(0, len(body), 16):
            time.sleep(0.25)
            connection.sendall(body[start : start + 16])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert kept_files(kept) == [b"slow"]


def test_a_refusal_in_the_middle_of_a_large_body_reaches_the_peer(tmp_path: Path) -> None:
    body = multipart([b"\0" * 30_000_000])
    with live_server(tmp_path, "--sink", "full") as full:
        for _ in range(3):
            answer = requests.post(full.studies, data=body, headers={"Content-Type": RELATED}, timeout=20)
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "60"


def test_a_connection_serves_again_after_a_refusal(server: LiveServer, kept: Path) -> None:
    with requests.Session() as session:
        headers = {"Content-Type": RELATED}
        assert session.post(server.studies, data=b"x" * 500_000, headers=headers, timeout=10).status_code == 400
        assert session.post(server.studies, data=multipart([b"a"]), headers=headers, timeout=10).status_code == 200
    assert kept_files(kept) == [b"a"]


def test_a_connection_that_is_kept_leaves_the_only_thread_to_others(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    files = [part10(dataset) for dataset in ct_series(6)]
    with (
        live_server(tmp_path, "--sink", str(kept), "--threads", "1") as alone,
        requests.Session() as first,
        requests.Session() as second,
    ):
        for number, file in enumerate(files):
            session = (first, first, second)[number % 3]
            answer = session.post(
                alone.studies, data=multipart([file]), headers={"Content-Type": RELATED}, timeout=10
            )
            assert answer.status_code == 200
    assert kept_files(kept) == files


def test_dicomweb_client_stores_a_series(server: LiveServer, kept: Path) -> None:
    series = ct_series(4)
    client = DICOMwebClient(url=f"http://127.0.0.1:{server.port}/dicomweb")
    answer = client.store_instances(series)
    assert isinstance(answer, Dataset)
    assert len(answer.ReferencedSOPSequence) == 4
    assert "FailedSOPSequence" not in answer
    assert len(kept_files(kept)) == 4


def test_dicomweb_client_stores_in_chunks(server: LiveServer, kept: Path) -> None:
    client = DICOMwebClient(url=f"http://127.0.0.1:{server.port}/dicomweb", chunk_size=1000)
    client.store_instances(ct_series(4))
    assert len(kept_files(kept)) == 4


@pytest.mark.skipif(CURL is None, reason="curl is not installed")
@pytest.mark.parametrize("transfer", [["--header", "Transfer-Encoding: chunked"], []], ids=["chunked", "length"])
def test_curl_stores_a_file(server: LiveServer, kept: Path, tmp_path: Path, transfer: list[str]) -> None:
    content = part10(ct_series(1)[0]) * 50
    (tmp_path / "body").write_bytes(multipart([content]))
    command = [str(CURL), "--silent", "--noproxy", "*", "--header", f"Content-Type: {RELATED}", *transfer]
    done = subprocess.run(
        [*command, "--write-out", "%{http_code}", "--output", "/dev/null", "--data-binary", "@body", server.studies],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert done.stdout == "200"
    assert kept_files(kept) == [content]


def test_a_large_body_is_streamed_in_little_memory(tmp_path: Path) -> None:
    parts, repeat = 10, 30
    closing = b"--Xq7-boundary--"
    ten_parts = multipart([os.urandom(1_000_000)] * parts).removesuffix(closing)

    def body() -> Iterator[bytes]:
        for _ in range(repeat):
            yield ten_parts
        yield closing

    with live_server(tmp_path) as server:
        start = time.monotonic()
        answer = requests.post(server.studies, data=body(), headers={"Content-Type": RELATED}, timeout=60)
        took = time.monotonic() - start
        rss = server.peak_rss_mb
    assert len(answer.json()["00081199"]["Value"]) == parts * repeat
    print(f"{parts * repeat} MB in {took:.1f} s; peak RSS {rss:.0f} MiB")
    assert rss < 100


def test_sigterm_lets_an_upload_finish(tmp_path: Path, kept: Path) -> None:
    for file in kept.iterdir():
        file.unlink()
    body = multipart([b"late"])
    with (
        live_server(tmp_path, "--sink", str(kept)) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection,
    ):
        connection.sendall(request_head(f"Content-Length: {len(body)}") + body[:50])
        wait_until(lambda: bool(server.worker))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        connection.sendall(body[50:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(10) == 0
    assert kept_files(kept) == [b"late"]


def test_a_killed_server_frees_its_port_at_once(tmp_path: Path) -> None:
    with live_server(tmp_path) as first:
        worker = first.worker
        stuck = socket.create_connection(("127.0.0.1", first.port))
        stuck.sendall(request_head("Content-Length: 5000"))
        wait_until(lambda: "Booting worker" in first.log.read_text())
        first.process.kill()
        first.process.wait()
        wait_until(lambda: not Path(f"/proc/{worker}").exists())
        with live_server(tmp_path, "--port", str(first.port)) as second:
            assert requests.get(f"http://127.0.0.1:{second.port}/health", timeout=5).status_code == 200
        stuck.close()


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with live_server(tmp_path) as server:
        old = server.worker
        os.kill(old, signal.SIGKILL)
        wait_until(lambda: server.worker != old)
        assert requests.get(f"http://127.0.0.1:{server.port}/health", timeout=5).json()["pid"] != old


def test_a_port_that_is_taken_is_an_error_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(HttpSettings(port=taken.getsockname()[1]), create_app, on_listening=print)  # type: ignore[arg-type]


def test_a_server_open_to_everybody_does_not_start() -> None:
    with pytest.raises(ConfigurationError, match="token"):
        serve(HttpSettings(host="0.0.0.0", port=0), create_app, on_listening=print)  # type: ignore[arg-type]


def test_connections_that_stay_are_shared_between_the_processes(tmp_path: Path) -> None:
    with live_server(tmp_path, "--processes", "2") as server, ExitStack() as stack:
        url = f"http://127.0.0.1:{server.port}/health"
        deadline, serving = time.monotonic() + 20, set[int]()
        while len(serving) < 2:
            assert time.monotonic() < deadline
            serving.add(requests.get(url, timeout=20).json()["pid"])
        sessions = [stack.enter_context(requests.Session()) for _ in range(8)]
        taken = Counter(session.get(url, timeout=20).json()["pid"] for session in sessions)
    assert len(taken) == 2
    assert min(taken.values()) >= 3


def test_a_process_that_dies_is_replaced_while_the_other_answers(tmp_path: Path) -> None:
    with live_server(tmp_path, "--processes", "2") as server:
        url = f"http://127.0.0.1:{server.port}/health"
        killed = server.worker
        os.kill(killed, signal.SIGKILL)
        assert requests.get(url, timeout=20).json()["pid"] != killed
        deadline = time.monotonic() + 20
        while len(server.workers) < 2 or killed in server.workers:
            assert time.monotonic() < deadline
            time.sleep(0.05)
