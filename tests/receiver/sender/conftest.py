"""The sender's tests run on both loops: the receiver's is uvloop, whose errors differ at times."""

from __future__ import annotations

import pytest


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """asyncio and uvloop."""
    return "asyncio", {"use_uvloop": request.param}
