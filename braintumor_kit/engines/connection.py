"""The connection to a Ray cluster: one that runs already, or one of this machine alone that is begun and ended here."""

import importlib.util
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from braintumor_kit.errors import InputError

ANSWER = 4.0
"""Seconds within which a port has to answer."""

HEALTH = 8.0
"""Seconds within which what answers has to say that it is Ray: by itself Ray would try for two minutes."""

STORE = 512 * 2**20
"""Bytes of the object store of a cluster begun here: what goes through it is small."""

PREFIX = "ray://"


def require_ray() -> None:
    """Finds early that Ray is missing.

    Raises:
        InputError: with the command that installs it.
    """
    if importlib.util.find_spec("ray") is None:
        raise InputError("--engine ray needs the package ray: pip install 'braintumor-kit[ray]'.")


def address_in(text: str) -> str | None:
    """HOST:PORT of `ray://HOST:PORT`; None of plain `ray`.

    Raises:
        InputError: where it is of another form.
    """
    if text == "ray":
        return None
    host, _, port = text.removeprefix(PREFIX).rpartition(":")
    if not (text.startswith(PREFIX) and host and port.isdecimal() and 0 < int(port) < 65536):
        raise InputError(f"--engine {text}: write it as local, ray or ray://HOST:PORT, such as ray://127.0.0.1:6379.")
    return f"{host}:{port}"


@contextmanager
def connected(address: str | None) -> Iterator[Any]:
    """Inside, this process is part of a cluster; gives the module `ray`.

    Args:
        address: HOST:PORT of a running cluster that this machine belongs to; None takes the one that `RAY_ADDRESS`
            names, or begins one of this machine alone, which ends with it.

    Raises:
        InputError: where no cluster answers there.
    """
    require_ray()
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address is not None:
        _check(address.removeprefix(PREFIX))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told what is computed here
    import ray

    heard = signal.getsignal(signal.SIGTERM)
    own: dict[str, Any] = {"object_store_memory": STORE, "include_dashboard": False} if address is None else {}
    with redirect_stdout(_Dropped()):
        try:
            place = address.removeprefix(PREFIX) if address else "local"
            ray.init(address=place, logging_level=logging.ERROR, log_to_driver=False, **own)
        except (ConnectionError, RuntimeError, ValueError) as error:
            where = f"the Ray cluster at {address}" if address else "Ray"
            raise InputError(f"{where} cannot be used: {str(error).splitlines()[0]}") from error
        try:
            signal.signal(signal.SIGTERM, heard)  # Ray has put its own in the place of btkit's
            yield ray
        finally:
            ray.shutdown()


class _Dropped(StringIO):
    """Takes what Ray prints between the results of a command, such as the last lines of a lost machine's log, which
    lies in Ray's own folder too."""

    def write(self, text: str) -> int:
        return len(text)


def _check(address: str) -> None:
    """Asks whether a cluster answers, within seconds."""
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    advice = "See whether it runs (`ray status`), or leave the address out to begin one on this machine alone."
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"no Ray cluster answers at {address}: {reason}. {advice}") from error
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=HEALTH, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"what answers at {address} is no Ray cluster, or one that hangs. {advice}") from error
    if asked.returncode:
        said = (asked.stderr or asked.stdout).strip().splitlines()
        raise InputError(f"the Ray cluster at {address} is not well: {said[-1] if said else 'it gave no reason'}.")
