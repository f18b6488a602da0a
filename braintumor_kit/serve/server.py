"""The socket, and what listens on it."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from braintumor_kit.errors import InputError
from braintumor_kit.serve.app import make_app
from braintumor_kit.serve.engine import Engine
from braintumor_kit.serve.guard import Guard
from braintumor_kit.serve.limits import Limits


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        InputError: where nothing can listen there.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"nothing can listen at {host}, port {port}: {reason}. Choose another --port.") from error


def impatient(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol, which by itself waits for ever for a connection that sends nothing."""

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.close()
                return
            self.loop.call_later(limits.head_seconds, self._close_if_silent, transport)

        def _close_if_silent(self, transport: asyncio.Transport) -> None:
            if self.cycle is None and not transport.is_closing():
                transport.close()

    return Impatient


def serve(engine: Engine, listening: socket.socket, host: str, token: str | None, ready: Callable[[str], None]) -> None:
    """Serves until it is interrupted.

    Args:
        host: that the socket is bound to, as the user named it.
        token: that is asked for, or None.
        ready: is told the address once it is.
    """
    limits = Limits()
    app = Guard(make_app(engine, limits), host, token)
    config = uvicorn.Config(
        app, log_level="error", access_log=False, server_header=False, timeout_keep_alive=10,
        timeout_graceful_shutdown=5, lifespan="on", ws="none", http=impatient(limits),
    )  # fmt: skip
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    ready(f"{address}?token={token}" if token else address)
    with suppress(KeyboardInterrupt):  # that is how it ends
        uvicorn.Server(config).run(sockets=[listening])
