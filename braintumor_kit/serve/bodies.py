"""Uploads: read into memory, bounded in size, time and number, never stored."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.requests import ClientDisconnect, Request

from braintumor_kit.serve.desk import BusyError, GoneError
from braintumor_kit.serve.limits import Limits


class RefusedError(Exception):
    """A request that is at fault.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """Those that are on their way."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open = 0

    async def read(self, request: Request) -> bytes:
        """The body of a request.

        Raises:
            RefusedError: where it is too large, takes too long or is empty.
            BusyError: where too many are on their way.
            GoneError: where the connection broke.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > self._limits.upload_bytes:
            raise self._too_large()
        async with self._counted():
            try:
                return await asyncio.wait_for(self._read(request), self._limits.upload_seconds)
            except TimeoutError as error:
                seconds = f"{self._limits.upload_seconds:g} seconds"
                raise RefusedError(408, f"the upload took longer than {seconds}; send a smaller picture.") from error
            except ClientDisconnect as error:
                raise GoneError from error

    async def _read(self, request: Request) -> bytes:
        pieces, size = [], 0
        async for piece in request.stream():
            size += len(piece)
            if size > self._limits.upload_bytes:
                raise self._too_large()
            pieces.append(piece)
        if not size:
            raise RefusedError(422, "the request has no picture: send its bytes as the body.")
        return b"".join(pieces)

    def _too_large(self) -> RefusedError:
        most = f"{self._limits.upload_bytes / 2**20:g} MiB"
        return RefusedError(413, f"the picture is larger than the {most} that are taken; send a smaller one.")

    @asynccontextmanager
    async def _counted(self) -> AsyncIterator[None]:
        if self._open >= self._limits.uploads:
            raise BusyError
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1
