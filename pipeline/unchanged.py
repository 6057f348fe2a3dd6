"""Whether stored files still hold what was received; asked beside the work on them, since that takes longer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from domain.errors import InstanceDamaged, MalformedInstance, StorageError
from domain.instance import Header, StoredInstance
from volume.digest import inspect
from volume.numbers import listed


@contextmanager
def unchanged(instances: Sequence[StoredInstance]) -> Iterator[None]:
    """Let the block work on stored files, and compare these meanwhile with the digests that intake made.

    Reading takes about 1 ms for each slice of a CT. Times and sizes are not asked: a disk that rots changes neither,
    and a backup that is put back changes times and nothing else.

    Raises
    ------
    InstanceDamaged
        Some have changed. Whatever the block found, or how it failed, says nothing about what was received.
    StorageError
        A file is gone or cannot be read.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="digest") as pool:
        reading = pool.submit(_changed, instances)
        try:
            yield
        finally:
            changed = reading.result()
            if changed:
                raise InstanceDamaged(
                    f"The stored files of {listed(changed)} are not what was received: they were changed, or the "
                    "disk is damaged. Send the series again, then: voxgate jobs retry."
                )


def _changed(instances: Sequence[StoredInstance]) -> list[Header]:
    return [item.header for item in instances if _digest(item) != item.digest]


def _digest(instance: StoredInstance) -> str:
    """Return the digest of what the file holds now; empty where that is no dataset."""
    try:
        return inspect(instance.path)[1]
    except MalformedInstance:
        return ""
    except OSError as error:
        raise StorageError("The stored file of an instance cannot be read") from error
