"""HTTP peers that send the head of a request byte by byte."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import requests
from http_process import live_server


def test_peers_that_never_finish_their_first_line_do_not_keep_others_out(tmp_path: Path) -> None:
    with live_server(tmp_path, "--threads", "2", "--idle-timeout", "2") as server:
        slow = [socket.create_connection(("127.0.0.1", server.port), timeout=5) for _ in range(4)]
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.2):
                for peer in list(slow):
                    try:
                        peer.sendall(b"G")
                    except OSError:
                        slow.remove(peer)

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            time.sleep(0.5)
            began = time.monotonic()
            assert requests.get(f"http://127.0.0.1:{server.port}/health", timeout=20).status_code == 200
            assert time.monotonic() - began < 10
        finally:
            over.set()
            dripping.join()
            for peer in slow:
                peer.close()
