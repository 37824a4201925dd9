"""A port that is held is refused until its server comes, and is given to nobody else."""

from __future__ import annotations

import errno
import socket

import pytest

from scripts.proofs.ports import held_port


def test_nobody_answers_at_it_until_its_server_does() -> None:
    port = held_port()
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        with socket.create_server(("127.0.0.1", port)):
            socket.create_connection(("127.0.0.1", port)).close()


def test_it_is_given_to_nobody_else() -> None:
    port = held_port(1)
    for held in (port, port + 1):
        with socket.socket() as other, pytest.raises(OSError, match="in use") as refused:
            other.bind(("127.0.0.1", held))
        assert refused.value.errno == errno.EADDRINUSE


def test_what_stands_beside_a_port_of_somebody_else_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first is looked for anew."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        given = iter([taken - 1, 0])  # where looking begins: below it, then anywhere

        class Socket(socket.socket):
            def bind(self, address: tuple[str, int], /) -> None:  # type: ignore[override]
                super().bind((address[0], address[1] or next(given, 0)))

        monkeypatch.setattr(socket, "socket", Socket)
        assert held_port(1) != taken - 1
