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
    """Those that are on their way, or wait for their answer."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open = self._bytes = 0

    @asynccontextmanager
    async def held(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request, counted until it is answered.

        Raises:
            RefusedError: where it is too large, takes too long or is empty.
            BusyError: where too many are held, or too much of them.
            GoneError: where the connection broke.
        """
        declared = request.headers.get("content-length", "")
        if declared.isdigit() and int(declared[:20]) > self._limits.upload_bytes:
            raise self._too_large()
        if self._open >= self._limits.uploads:
            raise BusyError
        self._open += 1
        pieces: list[bytes] = []
        try:
            await self._received(request, pieces)
            yield b"".join(pieces)
        finally:
            self._open -= 1
            self._bytes -= sum(map(len, pieces))

    async def _received(self, request: Request, pieces: list[bytes]) -> None:
        try:
            await asyncio.wait_for(self._read(request, pieces), self._limits.upload_seconds)
        except TimeoutError as error:
            seconds = f"{self._limits.upload_seconds:g} seconds"
            raise RefusedError(408, f"the upload took longer than {seconds}; send a smaller picture.") from error
        except ClientDisconnect as error:
            raise GoneError from error

    async def _read(self, request: Request, pieces: list[bytes]) -> None:
        size = 0
        async for piece in request.stream():
            size += len(piece)
            if size > self._limits.upload_bytes:
                raise self._too_large()
            pieces.append(piece)
            self._bytes += len(piece)
            if self._bytes > self._limits.held_bytes:
                raise BusyError
        if not size:
            raise RefusedError(422, "the request has no picture: send its bytes as the body.")

    def _too_large(self) -> RefusedError:
        most = f"{self._limits.upload_bytes / 2**20:g} MiB"
        return RefusedError(413, f"the picture is larger than the {most} that are taken; send a smaller one.")
