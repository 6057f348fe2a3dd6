from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from domain.errors import OutOfSpace, StorageError
from store.groups import Groups


class SlowWriter:
    """Notes the groups it is given; the first one waits until told to go on."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, items: Sequence[int]) -> None:
        self.groups.append(list(items))
        self.started.set()
        self.go_on.wait(10)
        if 13 in items:
            raise OutOfSpace
        if 666 in items:
            raise KeyboardInterrupt


def test_who_comes_while_one_is_writing_is_written_together() -> None:
    writer = SlowWriter()
    groups = Groups[int](writer)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(groups.run, [0])
        assert writer.started.wait(10)
        others = [pool.submit(groups.run, [number]) for number in range(1, 6)]
        while len(groups._waiting) < 5:
            threading.Event().wait(0.001)
        writer.go_on.set()
        for future in (first, *others):
            future.result(10)
    assert writer.groups[0] == [0]
    assert sorted(writer.groups[1]) == [1, 2, 3, 4, 5]
    assert len(writer.groups) == 2


def test_an_error_of_the_group_is_everybodys_and_the_next_group_is_unharmed() -> None:
    writer = SlowWriter()
    groups = Groups[int](writer)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(groups.run, [0])
        assert writer.started.wait(10)
        others = [pool.submit(groups.run, [number]) for number in (12, 13)]
        while len(groups._waiting) < 2:
            threading.Event().wait(0.001)
        writer.go_on.set()
        first.result(10)
        for future in others:
            with pytest.raises(OutOfSpace):
                future.result(10)
    groups.run([1])
    assert writer.groups[-1] == [1]


def test_an_interrupted_writer_never_looks_like_success_to_those_who_wait() -> None:
    writer = SlowWriter()
    groups = Groups[int](writer)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(groups.run, [0])
        assert writer.started.wait(10)
        others = [pool.submit(groups.run, [number]) for number in (665, 666)]
        while len(groups._waiting) < 2:
            threading.Event().wait(0.001)
        writer.go_on.set()
        first.result(10)
        raised = {type(future.exception(10)) for future in others}
    assert raised == {KeyboardInterrupt, StorageError}
