"""A port of one's own before anybody listens there, and while whoever does is restarted."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of loopback that the system gives to nobody else, while inside.

    A socket holds it that does not listen. Whoever asks for the port by its number may listen
    beside that, as long as both say SO_REUSEADDR, which servers do.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port: int = held.getsockname()[1]
        yield port
