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
    with _bound(0) as held:
        port: int = held.getsockname()[1]
        yield port


def held_port(*beside: int) -> int:
    """A port of loopback that is nobody else's until this process ends; so are those that many
    `beside` it.

    One that was only found free may be somebody's before it is used: whoever connects, or listens
    at port 0, is given any. This one stays bound, and so is given to nobody. As it does not listen,
    connections to it are refused, and who binds its number with SO_REUSEADDR, as all servers do,
    may listen at it, again and again.
    """
    held: list[socket.socket] = []
    port = 0
    try:
        for number in (0, *beside):
            held.append(_bound(port and port + number))
            port = port or held[0].getsockname()[1]
    except OSError:  # one beside it is somebody's
        for each in held:
            each.close()
        return held_port(*beside)
    for each in held:
        each.detach()  # nothing closes it any more
    return port


def _bound(port: int) -> socket.socket:
    found = socket.socket()
    try:
        found.bind(("127.0.0.1", port))
    except OSError:
        found.close()
        raise
    # Only now: before, it would share a port that another process holds like this.
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return found
