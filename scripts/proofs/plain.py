"""uvicorn's own connections in place of ours: control of `slow`, yardstick of a benchmark."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from receiver import server
from receiver.connection import Gate


def leave_connections_to_uvicorn() -> None:
    """From now on, in this process."""
    patch.object(server, "Connection", _plain).start()


def _plain(_gate: Gate, **given: Any) -> HttpToolsProtocol:
    return HttpToolsProtocol(**given)
