"""How all fares, over HTTP: overview, an endpoint's health, the receiver's, settings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from receiver import __version__
from receiver.admin.ops import Principal, Query
from receiver.admin.ops import figures as figure_ops
from receiver.clock import DAY, MINUTE, SECOND
from receiver.condition import StoreCondition
from receiver.deliveries import State
from receiver.errors import Forbidden, NotFound
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN, PUBLIC_URL, SIGNING_KEY, Assembled, assembled
from tests.make import KEY, arrival, claims, settled, success, uuid, wrapped
from tests.receiver.store.suite import arrival_of, claim, queued

OWNER = Principal("owner", "film")
TOKEN = TokenBox([KEY]).mint(claims(expected=2))

pytestmark = pytest.mark.anyio


@pytest.fixture
async def receiver(tmp_path: Path) -> AsyncIterator[Assembled]:
    async with assembled(tmp_path, REELHOOK_ALERT_URL="https://example.com/x") as found:
        yield found


@pytest.fixture
def api(receiver: Assembled) -> httpx.AsyncClient:
    return receiver.client


async def got(api: httpx.AsyncClient, path: str) -> Any:
    response = await api.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def test_the_overview_tells_what_came_and_what_was_refused(receiver: Assembled) -> None:
    url = webhook_url("", "runware", TOKEN, {})
    await receiver.stranger.post(url, content=wrapped(success()))
    await receiver.stranger.post(url, content=wrapped(success()))
    await receiver.stranger.post("/webhooks/runware?sig=forged", content=b"{}")
    found = await got(receiver.client, "/v1/overview")
    assert found["last_callback_at"] == found["at"]
    assert found["results"]["succeeded"] == 1
    assert found["tasks"]["open"] == {"count": 1, "complete": True}
    assert found["answers"]["outcomes"] == {"recorded": 1, "duplicate": 1, "token_malformed": 1}
    assert found["answers"]["since"] == found["at"]


async def test_figures_are_kept_for_a_second(receiver: Assembled) -> None:
    before = await got(receiver.client, "/v1/overview")
    await receiver.store.record(arrival(success()))
    assert await got(receiver.client, "/v1/overview") == before
    assert (await got(receiver.client, "/v1/overview?project=film"))["project"] == "film"
    receiver.clock.advance(SECOND)
    after = await got(receiver.client, "/v1/overview")
    assert after["results"]["succeeded"] == 1
    assert receiver.service.ops._known.keys() == {None}


async def test_who_asks_at_once_waits_for_one_answer(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    overview = receiver.store.overview

    async def counting(found: Any) -> Any:
        asked.append(found)
        return await overview(found)

    monkeypatch.setattr(receiver.store, "overview", counting)
    ops, who = receiver.service.ops, Principal("admin")
    await asyncio.gather(*(ops.overview(who, Query()) for _ in range(5)))
    assert len(asked) == 1


async def test_a_project_is_told_its_own_alone(receiver: Assembled) -> None:
    ops = receiver.service.ops
    await receiver.store.record(arrival(success()))
    endpoint = await queued(receiver.store)
    found = await ops.overview(OWNER, Query())
    assert (found.project, found.results.succeeded, found.answers) == ("film", 0, None)
    with pytest.raises(Forbidden):
        await ops.overview(OWNER, Query(project="music"))
    with pytest.raises(NotFound):
        await ops.endpoint_report(OWNER, endpoint.id)
    for asked in (ops.health, ops.setup):
        with pytest.raises(Forbidden):
            await asked(OWNER)


async def test_an_endpoints_health(receiver: Assembled) -> None:
    endpoint = await queued(receiver.store)
    (claimed,) = await claim(receiver.store)
    await receiver.store.settle(settled(claimed, State.DEAD))
    found = await got(receiver.client, f"/v1/endpoints/{endpoint.id}/health")
    assert found["hours"][-1]["failed"] == found["attempts"] == 1
    assert (found["success_rate"], found["dead"]["count"]) == (0, 1)
    assert found["health"]["breaker"] == "closed"
    reports = await receiver.service.ops.endpoint_reports(Principal("admin"), [endpoint.id])
    assert reports[endpoint.id].model_dump(mode="json") == found


async def test_an_endpoint_that_went_in_between_is_not_found(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = await queued(receiver.store)

    async def gone(_endpoints: Any, now: int) -> list[Any]:
        await receiver.store.delete_endpoint(endpoint.id, now)
        return []

    monkeypatch.setattr(receiver.store, "endpoint_reports", gone)
    response = await receiver.client.get(f"/v1/endpoints/{endpoint.id}/health")
    assert response.status_code == 404


async def checks(api: httpx.AsyncClient) -> dict[str, str]:
    """The grade of each check."""
    return {check["name"]: check["grade"] for check in (await got(api, "/v1/health"))["checks"]}


async def test_health_when_all_is_well(receiver: Assembled) -> None:
    found = await got(receiver.client, "/v1/health")
    assert (found["grade"], found["version"]) == ("ok", __version__)
    assert (found["instance"], found["public_url"]) == (receiver.store.instance, PUBLIC_URL)
    assert found["store"]["engine"] == "SQLite"
    assert await checks(receiver.client) == dict.fromkeys(
        ("store", "disk", "worker", "queue", "endpoints"), "ok"
    )


async def test_health_when_the_queue_lags(receiver: Assembled) -> None:
    await queued(receiver.store)
    receiver.clock.advance(MINUTE + SECOND)
    found = await checks(receiver.client)
    # Nothing ran the worker meanwhile.
    assert (found["queue"], found["worker"]) == ("warning", "failing")
    assert (await got(receiver.client, "/v1/health"))["grade"] == "failing"


async def test_health_when_an_endpoint_is_disabled(receiver: Assembled) -> None:
    endpoint = await queued(receiver.store)
    await receiver.client.post(f"/v1/endpoints/{endpoint.id}/disable")
    assert (await checks(receiver.client))["endpoints"] == "warning"


async def test_health_when_the_disk_is_nearly_full(
    receiver: Assembled, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = await receiver.store.condition()

    async def full() -> StoreCondition:
        return condition.model_copy(update={"free": 1 << 20, "refusal": "No room."})

    monkeypatch.setattr(receiver.store, "condition", full)
    found = await checks(receiver.client)
    assert (found["disk"], found["store"]) == ("warning", "failing")
    assert figure_ops.TIGHT > 1 << 20


async def test_settings_show_where_they_come_from_and_no_secret(
    receiver: Assembled, tmp_path: Path
) -> None:
    response = await receiver.client.get("/v1/settings")
    found = {one["name"]: one for one in response.json()["settings"]}
    assert found["REELHOOK_DATA_DIR"]["value"] == str(tmp_path)
    assert found["REELHOOK_DATA_DIR"]["origin"] == "environment"
    assert (found["PORT"]["value"], found["PORT"]["origin"]) == ("8000", "default")
    admin = found["REELHOOK_ADMIN_TOKEN"]
    assert (admin["value"], admin["is_set"], admin["is_secret"]) == (None, True, True)
    assert found["REELHOOK_STATIC_KEYS"]["is_set"] is False
    assert found["REELHOOK_ALERT_URL"]["value"] is None
    for secret in (ADMIN_TOKEN, SIGNING_KEY, "example.com/x"):
        assert secret not in response.text


async def test_the_cost_of_today_is_that_of_the_costs(receiver: Assembled) -> None:
    for number in range(1, 4):
        await receiver.store.record(arrival_of(uuid(number), success(number)))
    found = await got(receiver.client, "/v1/overview")
    (day,) = (await got(receiver.client, "/v1/costs?by=day"))["data"]
    assert found["cost_today"] == {"cost": day["cost"], "complete": True}
    receiver.clock.advance(DAY)
    assert (await got(receiver.client, "/v1/overview"))["cost_today"]["cost"] is None
