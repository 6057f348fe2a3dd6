"""Mutated STOW-RS bodies into the real application on the real store."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

from factories import ct_series, mr_series
from http_fakes import ListedJobs, NotingIndex
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian
from stow_bodies import BOUNDARY, RELATED, multipart, part10

from gateway.http import HttpSettings, create_app
from pipeline.intake import Intake
from store.files import INSTANCES, QUARANTINE
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

ITERATIONS = int(os.environ.get("VOXGATE_FUZZ", "150"))
EXPECTED = {200, 202, 400, 409, 413, 415}
DELIMITER = b"--" + BOUNDARY.encode()


def files() -> list[bytes]:
    """Return small valid files in several encodings, one with nested sequences of undefined length."""
    made = []
    for number, dataset in enumerate([*ct_series(3), *mr_series(3)]):
        inner = Dataset()
        inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "T-1", "99X", "a"
        outer = Dataset()
        outer.ConceptNameCodeSequence = [inner]
        dataset.ProcedureCodeSequence = [outer, inner]
        dataset["ProcedureCodeSequence"].is_undefined_length = True
        dataset.add_new(0x00090010, "LO", "ACME")
        dataset.add_new(0x00091001, "UN", b"\x01\x02\x03\x04")
        if number % 3 == 1:
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        if number % 3 == 2:
            dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        made.append(part10(dataset))
    return made


def damaged(chance: random.Random, data: bytes) -> bytes:
    """Return bytes that are wrong in a few places, lengths and tags more often than values."""
    piece = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5))):
        if not piece:
            break
        what, at = chance.randrange(6), chance.randrange(len(piece))
        if what == 0:
            piece[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            value = chance.choice((0, 1, 0x7FFF, 0xFFFE, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFEE000, len(piece)))
            piece[at : at + 4] = struct.pack("<I", value & 0xFFFFFFFF)
        elif what == 2:
            del piece[at:]
        elif what == 3:
            del piece[at : at + chance.choice((1, 2, 8, 100))]
        elif what == 4:
            piece[at:at] = piece[: chance.choice((1, 12, 200))]
        else:
            piece[at:at] = chance.choice((DELIMITER, b"\r\n" + DELIMITER + b"--", b"\r\n\r\n", b"\0" * 9, b"SQ"))
    return bytes(piece)


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def kept_files(store: Store) -> int:
    return sum(1 for area in (INSTANCES, QUARANTINE) for _ in store._files.kept(area))


def test_mutated_bodies_get_a_clear_answer_and_leave_nothing_behind(tmp_path: Path) -> None:
    chance = random.Random(int(os.environ.get("VOXGATE_FUZZ_SEED", "1")))
    settings = StoreSettings(path=tmp_path / "store", low_water_mb=0)
    migrate_store(settings)
    valid, before, statuses = files(), 0, dict.fromkeys(EXPECTED, 0)
    with open_store(settings) as store:
        app = create_app(
            Intake(store.instances), NotingIndex().as_index(), ListedJobs().as_log(), HttpSettings(), dict
        )
        client = app.test_client()
        acknowledged: set[str] = set()
        for number in range(ITERATIONS):
            parts = chance.sample(valid, chance.randint(1, 3))
            if chance.random() < 0.8:
                parts[0] = damaged(chance, parts[0])
            body = multipart(parts)
            body = damaged(chance, body) if chance.random() < 0.3 else body
            answer = client.post("/dicomweb/studies", data=body, content_type=RELATED)
            assert answer.status_code in EXPECTED, answer.data
            statuses[answer.status_code] += 1
            if answer.status_code in (200, 202) and answer.json is not None:
                said = answer.json.get("00081199", {}).get("Value", [])
                acknowledged |= {item["00081155"]["Value"][0] for item in said}
            if number == ITERATIONS // 3:
                before = resident_kb()
        grown = resident_kb() - before
        found = store.series.instances_by_uid(sorted(acknowledged))
        print(f"{ITERATIONS} bodies, {statuses}, {len(found)} instances, {kept_files(store)} files, {grown} KiB more")
        assert len(found) == len(acknowledged)
        assert all(instance.path.is_file() for instance in found)
        assert not list((tmp_path / "store" / "tmp").rglob("*.part"))
        assert set(store.reconcile().values()) == {0}
    if ITERATIONS >= 1000:
        assert grown < 50_000
