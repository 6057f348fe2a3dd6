"""Fifty clients at once ask a real gateway with a small model: each gets its own answer, and memory stays."""

from __future__ import annotations

import base64
import io
import os
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from gateway_server import GatewayServer
from medversa_checkpoint import write_checkpoint
from PIL import Image

pytestmark = pytest.mark.usefixtures("language_models")

CLIENTS = 50
PICTURES = 5
ROUNDS = int(os.environ.get("VOXGATE_LOAD_ROUNDS", "1"))


def _request(number: int) -> dict[str, Any]:
    """Return a question about a picture of its own size, so that no other's mask could be its answer."""
    noise = np.random.default_rng(number).integers(0, 255, (40 + number, 60 - number, 3)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noise).save(out, "PNG")
    image = {"data": base64.b64encode(out.getvalue()).decode(), "format": "png"}
    # Some are drawn by lot, with lengths and settings of their own: together they must be what they are alone.
    settings = {"seed": number, "temperature": 2.0, "max_new_tokens": 5 + 3 * number, "num_beams": 1 + number % 2}
    hyperparams = settings if number % 3 else {"do_sample": False}
    task = "segmentation" if number % 3 else "classification"
    asked = {"images": [image], "modality": "derm", "task": task, "prompt": "mask " * (1 + 7 * number)}
    return {**asked, "hyperparams": hyperparams}


def _rss_mb(server: GatewayServer) -> float:
    """Return the resident memory of the process that holds the model: the largest of the gateway's."""
    sizes: list[float] = []
    for pid in server.pids().values():
        for process in (pid, *_children(pid)):
            status = Path(f"/proc/{process}/status").read_text()
            sizes += [int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")]
    return max(sizes)


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_fifty_clients_at_once_get_their_own_answers(tmp_path: Path) -> None:
    weights = write_checkpoint(tmp_path / "medversa", babbles=True)
    sections: dict[str, dict[str, object]] = {
        "http": {"threads": 64},
        "predict": {"enabled": True, "queue": 200},
        "engines.medversa": {
            "weights": weights,
            "accept_license": "non-commercial research",
            "device": "cpu",
            "batch": int(os.environ.get("VOXGATE_LOAD_BATCH", "8")),
            "precision": "bf16",  # with which a processor rounds every row alike: answers are written together
        },
    }
    # Two threads that wait for each other after each small product take minutes beside other work.
    one_thread = {"OMP_NUM_THREADS": "1"}
    with GatewayServer(tmp_path / "gateway", sections=sections, environment=one_thread) as server:
        url = f"{server.http_url}/predict"

        def ask(number: int) -> tuple[int, float, Any]:
            began = time.perf_counter()
            answer = requests.post(url, json=_request(number), timeout=300)
            return answer.status_code, time.perf_counter() - began, answer.json()

        alone = [ask(number) for number in range(PICTURES)]
        assert [status for status, _, _ in alone] == [200] * PICTURES
        assert len({answer["text"] for _, _, answer in alone}) == PICTURES  # a mix-up would be seen
        before, waits = _rss_mb(server), []
        for _ in range(ROUNDS):
            with ThreadPoolExecutor(CLIENTS) as clients:
                answers = list(clients.map(ask, [number % PICTURES for number in range(CLIENTS)]))
            for number, (status, seconds, answer) in enumerate(answers):
                assert status == 200, answer
                own = alone[number % PICTURES][2]
                assert answer["text"] == own["text"]
                assert answer.get("segmentation_mask") == own.get("segmentation_mask")
                assert answer["context_used"] == own["context_used"]
                waits.append(seconds)
        grown = _rss_mb(server) - before
        p95 = statistics.quantiles(waits, n=20)[-1]
        print(f"\n{len(waits)} answers, p95 {p95:.2f} s, memory {before:.0f} MB and {grown:+.0f} MB")
        assert grown < 100
