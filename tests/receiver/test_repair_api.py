"""Repair over the API: dead letters, and what is sent again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.doubles import START, Assembled, assembled
from tests.receiver.store.repair_suite import die
from tests.receiver.store.suite import queued

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path) as found:
        yield found


async def get(receiver: Assembled, path: str, **query: Any) -> Any:
    response = await receiver.client.get(path, params=query)
    assert response.status_code == 200, response.text
    return response.json()


async def test_dead_letters_are_shown_by_cause_page_by_page(receiver: Assembled) -> None:
    added = await queued(receiver.store, 3)
    await die(receiver.store, START, 0, 1)
    first = await get(receiver, "/v1/deliveries/dead", limit=1, endpoint=added.id)
    (group,) = first["data"]
    assert (group["endpoint_id"], group["error"], group["status"]) == (added.id, "status", 500)
    assert (group["count"], group["endpoint_deleted"]) == (2, False)
    shown = await get(receiver, f"/v1/deliveries/{group['example']}")
    assert (shown["state"], shown["last_status"]) == ("dead", 500)
    rest = await get(receiver, "/v1/deliveries/dead", cursor=first["next_cursor"])
    assert [(one["status"], one["count"]) for one in rest["data"]] == [(404, 1)]
    assert rest["next_cursor"] is None
