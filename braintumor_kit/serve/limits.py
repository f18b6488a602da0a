"""What an upload and a queue may cost."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of a server.

    Attributes:
        connections: at once; one more is closed.
        head_seconds: in which a connection has to have sent its first request's head.
        upload_bytes: of one picture or volume.
        held_bytes: of all uploads that are on their way or wait for an answer.
        upload_seconds: that an upload may take.
        uploads: that may be on their way or wait for an answer at once.
        waiting: requests that may stand in the row; one more is told to come again.
        wait_seconds: that one may stand there.
        retry_seconds: after which one that was turned away may come again.
    """

    connections: int = 256
    head_seconds: float = 10.0
    upload_bytes: int = 128 * 2**20
    held_bytes: int = 512 * 2**20
    upload_seconds: float = 20.0
    uploads: int = 64
    waiting: int = 16
    wait_seconds: float = 30.0
    retry_seconds: int = 1
