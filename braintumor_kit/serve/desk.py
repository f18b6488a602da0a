"""The row before the model: one request at a time, outside of the event loop; who would wait too long is told so."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from braintumor_kit.serve.limits import Limits

T = TypeVar("T")


class BusyError(Exception):
    """There are too many in the row, or one has stood there too long: come again."""


class GoneError(Exception):
    """Who asked has hung up; nobody reads the answer."""


class Desk:
    """Works through requests in their order, in a thread of its own: a model has one state and two cores serve one."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self._turn = asyncio.Lock()
        self._row = 0

    async def do(self, work: Callable[[], T], gone: Callable[[], Awaitable[bool]]) -> T:
        """The result of some work, when its turn has come.

        Args:
            gone: whether nobody waits for it any more.

        Raises:
            BusyError: where the row is full or the wait too long.
            GoneError: where nobody waited when its turn came.
        """
        if self._row > self._limits.waiting:  # one is at work, the others wait
            raise BusyError
        self._row += 1
        try:
            try:
                await asyncio.wait_for(self._turn.acquire(), self._limits.wait_seconds)
            except TimeoutError as error:
                raise BusyError from error
            try:
                if await gone():
                    raise GoneError
                # What has begun cannot be stopped; one thread takes the next when it is done.
                return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, work))
            finally:
                self._turn.release()
        finally:
            self._row -= 1

    def close(self) -> None:
        """Ends the thread when its work is done."""
        self._thread.shutdown(wait=False, cancel_futures=True)
