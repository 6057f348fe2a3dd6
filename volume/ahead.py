"""Work that several threads do ahead of its reader, in the reader's order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_MOST = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers_for(count: int) -> int:
    """Return how many threads are of use for ``count`` pieces of work: one a processor, at most eight."""
    return max(1, min(count, _MOST, len(os.sched_getaffinity(0))))


def in_order(work: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Yield what ``work`` returns for each of ``items``; it is at most three times ``workers`` ahead.

    What the first of ``items`` that fails raised is raised in its turn, whichever failed first by the clock.
    """
    if workers < 2:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            for item in items:
                ahead.append(pool.submit(work, item))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            for waiting in ahead:
                waiting.cancel()
