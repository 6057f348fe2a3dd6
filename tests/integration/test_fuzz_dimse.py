"""Mutated DIMSE messages over raw sockets against the real SCP on the real store."""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from factories import ct_slice
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from pipeline.intake import Intake
from scp.server import serving
from scp.settings import ScpSettings
from store.files import INSTANCES, QUARANTINE
from store.settings import StoreSettings
from store.store import Store, migrate_store, open_store

ITERATIONS = int(os.environ.get("VOXGATE_FUZZ", "60"))
SETTINGS = ScpSettings(
    port=0, stop_timeout_s=1, acse_timeout_s=1, dimse_timeout_s=1, network_timeout_s=1, stall_timeout_s=0.5
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    settings = StoreSettings(path=tmp_path / "store", low_water_mb=0)
    migrate_store(settings)
    with open_store(settings) as opened:
        yield opened


def send(port: int, dataset: Dataset) -> int:
    """Store one instance with a well-behaved SCU; return the status."""
    ae = AE("MODALITY")
    ae.acse_timeout = ae.dimse_timeout = 10
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    association = ae.associate("127.0.0.1", port, ae_title="VOXGATE")
    assert association.is_established
    status = int(association.send_c_store(dataset).Status)
    association.release()
    return status


def conversation(port: int, dataset: Dataset) -> list[bytes]:
    """Return the PDUs that an SCU sends to store ``dataset``, as they cross the wire."""
    spoken = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def relay() -> None:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", port)) as server:

                def back() -> None:
                    while data := server.recv(65536):
                        client.sendall(data)

                other = threading.Thread(target=back)
                other.start()
                while data := client.recv(65536):
                    spoken.extend(data)
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
                other.join()

        thread = threading.Thread(target=relay)
        thread.start()
        assert send(listener.getsockname()[1], dataset) == 0x0000
        thread.join()
    pdus, position = [], 0
    while position < len(spoken):
        length = 6 + struct.unpack_from(">I", spoken, position + 2)[0]
        pdus.append(bytes(spoken[position : position + length]))
        position += length
    return pdus


def mutated(chance: random.Random, pdus: list[bytes]) -> list[bytes]:
    """Return a conversation that is wrong in one to three places; most lengths still fit."""
    said = [bytearray(pdu) for pdu in pdus]
    for _ in range(chance.randint(1, 3)):
        index = chance.randrange(len(said))
        pdu = said[index]
        what = chance.randrange(8)
        if what <= 2 and len(pdu) > 6:  # some bytes, the head of the message more often than its end
            for _ in range(chance.choice((1, 1, 2, 8))):
                end = len(pdu) if chance.random() < 0.3 else min(len(pdu), 200)
                pdu[chance.randrange(6, end)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        elif what == 3 and len(pdu) > 10:  # shorter, its length put right
            del pdu[chance.randrange(6, len(pdu)) :]
            struct.pack_into(">I", pdu, 2, len(pdu) - 6)
        elif what == 4:  # the length of the PDU, or of a PDV
            place = 2 if len(pdu) < 10 or chance.random() < 0.5 else 6
            struct.pack_into(
                ">I", pdu, place, chance.choice((0, 1, 2, 3, 7, len(pdu), 1 << 17, 0x7FFFFFFF, 0xFFFFFFFF))
            )
        elif what == 5:
            said.insert(chance.randrange(len(said) + 1), bytearray(chance.choice(said)))
        elif what == 6 and len(said) > 1:
            said.pop(index)
        elif what == 7:
            pdu[0] = chance.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 255))
        if not said:
            break
    return [bytes(pdu) for pdu in said]


def say(port: int, pdus: list[bytes], chance: random.Random) -> None:
    """Send what we have, listen for a moment, and leave, at times without a word."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
        peer.settimeout(0.05)
        try:
            for pdu in pdus:
                peer.sendall(pdu)
                if chance.random() < 0.5:
                    peer.recv(4096)
            peer.recv(4096)
        except (TimeoutError, ConnectionError):
            return


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def kept_files(store: Store) -> int:
    return sum(1 for area in (INSTANCES, QUARANTINE) for _ in store._files.kept(area))


def wait_until_quiet(threads: int) -> None:
    deadline = time.monotonic() + 20
    while threading.active_count() > threads and time.monotonic() < deadline:
        time.sleep(0.05)


def test_mutated_messages_leave_nothing_behind_and_others_go_on_storing(store: Store, tmp_path: Path) -> None:
    seed = int(os.environ.get("VOXGATE_FUZZ_SEED", "1"))
    chance = random.Random(seed)
    with serving(SETTINGS, Intake(store.instances)) as port:
        template = ct_slice(study_instance_uid="1.2.3.4", series_instance_uid="1.2.3.5")
        pdus = conversation(port, template)
        marker = str(template.SOPInstanceUID).encode()
        threads, before = threading.active_count(), 0
        good = 1
        for number in range(ITERATIONS):
            uid = generate_uid(prefix="1.2.826.0.1.3680043.8.498.")[: len(marker)].encode().ljust(len(marker), b"1")
            say(port, mutated(chance, [pdu.replace(marker, uid) for pdu in pdus]), chance)
            if number % 20 == 19:
                assert send(port, ct_slice(series_instance_uid="1.2.3.6")) == 0x0000
                good += 1
            if number == ITERATIONS // 3:
                before = resident_kb()
        wait_until_quiet(threads)
        left = threading.active_count() - threads
        grown = resident_kb() - before
    rows = len(store.series.instances("1.2.3.6"))
    print(f"{ITERATIONS} conversations, {rows} good, {kept_files(store)} files, {left} threads, {grown} KiB more")
    assert rows == good - 1
    assert left <= 0
    assert not list((tmp_path / "store" / "tmp").rglob("*.part"))
    assert set(store.reconcile().values()) == {0}
    if ITERATIONS >= 1000:
        assert grown < 50_000


def test_a_message_that_cannot_be_understood_frees_its_place_at_once(store: Store) -> None:
    patient = ScpSettings(port=0, stop_timeout_s=1, max_associations=1, network_timeout_s=60)
    command_field = bytes.fromhex("0000000102000000")
    with serving(patient, Intake(store.instances)) as port:
        pdus = conversation(port, ct_slice())
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(pdus[0])
            peer.recv(65536)
            peer.sendall(pdus[1].replace(command_field, bytes.fromhex("0000010102000000")))
            while peer.recv(65536):
                pass  # an A-ABORT, and then the end of the connection
            assert send(port, ct_slice()) == 0x0000


def test_connections_that_were_opened_and_closed_without_a_word_take_no_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scp.server._Server.max_connections", 8)
    with serving(ScpSettings(port=0, stop_timeout_s=1), Intake(store.instances)) as port:
        for peer in [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(8)]:
            peer.close()
        deadline, established = time.monotonic() + 10, False
        while not established and time.monotonic() < deadline:
            ae = AE("MODALITY")
            ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
            association = ae.associate("127.0.0.1", port, ae_title="VOXGATE")
            established = association.is_established
            association.release() if established else time.sleep(0.2)
        assert established


@pytest.mark.parametrize("control", [0, 1], ids=["dataset", "command"])
def test_a_message_without_an_end_is_cut_off(store: Store, control: int) -> None:
    settings = ScpSettings(port=0, stop_timeout_s=1, max_instance_mb=4)
    with serving(settings, Intake(store.instances)) as port:
        pdus = conversation(port, ct_slice())
        fragment = struct.pack(">IBB", 100_002, pdus[1][10], control) + bytes(100_000)
        pdu = b"\x04\0" + struct.pack(">I", len(fragment)) + fragment
        sent = 0
        with socket.create_connection(("127.0.0.1", port), timeout=5) as peer:
            peer.sendall(pdus[0])
            peer.recv(65536)
            if not control:
                peer.sendall(pdus[1])
            with suppress(ConnectionError):
                while sent < 500_000_000:
                    peer.sendall(pdu)
                    sent += len(pdu)
        assert sent < 50_000_000
        assert send(port, ct_slice()) == 0x0000


def test_idle_associations_give_way_to_somebody_who_has_something_to_send(store: Store) -> None:
    settings = ScpSettings(port=0, stop_timeout_s=1, max_associations=3, yield_after_s=0.5)
    with serving(settings, Intake(store.instances)) as port:
        idle = []
        for number in range(3):
            ae = AE(f"IDLE{number}")
            ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
            idle.append(ae.associate("127.0.0.1", port, ae_title="VOXGATE"))
        assert all(association.is_established for association in idle)
        time.sleep(1)
        assert send(port, ct_slice()) == 0x0000
        time.sleep(0.3)
        assert sum(association.is_established for association in idle) == 2
        for association in idle:
            association.abort()
