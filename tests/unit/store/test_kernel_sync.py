from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import cast

import pytest

from store.files import Files
from store.kernel_sync import BegunSync, KernelSyncs, _Context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux syncs for us")


def opened(folder: Path) -> int:
    fd = os.open(folder / "file", os.O_WRONLY | os.O_CREAT)
    os.write(fd, b"bytes")
    return fd


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_a_sync_ends_with_the_file_closed_and_the_queue_is_used_again(tmp_path: Path) -> None:
    syncs = KernelSyncs()
    for _ in range(3):
        fd = opened(tmp_path)
        begun = syncs.begin(fd)
        if begun is None:
            pytest.skip("this kernel or container has no io_submit")
        begun.wait()
        assert not is_open(fd)
    assert len(syncs._free) == 1
    syncs.close()
    assert not syncs._free


def test_what_the_kernel_cannot_sync_is_left_open_to_the_caller() -> None:
    read, write = os.pipe()
    assert KernelSyncs().begin(write) is None
    assert is_open(write)
    os.close(read)
    os.close(write)


class FailingContext:
    def result(self) -> int:
        return errno.EIO


def test_a_fault_of_the_disk_is_raised(tmp_path: Path) -> None:
    fd = opened(tmp_path)
    with pytest.raises(OSError) as caught:
        BegunSync(cast(_Context, FailingContext()), fd, KernelSyncs()).wait()
    assert caught.value.errno == errno.EIO
    assert not is_open(fd)


@pytest.mark.parametrize("kernel", [True, False])
def test_a_staged_file_is_synced_or_discarded_after_its_sync_began(tmp_path: Path, kernel: bool) -> None:
    files = Files(tmp_path / "store", low_water_mb=0)
    if not kernel:
        files.kernel_syncs._call = None
    kept, discarded = files.stage(), files.stage()
    for file in (kept, discarded):
        file.write(b"bytes")
        file.begin_sync()
    kept.sync()
    kept.sync()
    assert kept.path.read_bytes() == b"bytes"
    before = len(list(Path("/proc/self/fd").iterdir()))
    discarded.discard()
    discarded.discard()
    assert not discarded.path.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) == before - 1
    files.close()
