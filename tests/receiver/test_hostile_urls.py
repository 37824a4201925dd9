"""Every way to write an address inside × every door × every way there: no canary is ever hit.

`BYPASSES` and `ODD_URLS` list the spellings. A door brings URLs to where the worker would send to
them, and has it send; a way is how a URL leads inside. A new door is one line in `DOORS`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult

from receiver.clock import MINUTE
from receiver.deliveries import Delivery
from receiver.delivery.signing import new_secret
from receiver.store.protocol import Query
from tests.doubles import Assembled, assembled_over
from tests.make import endpoint as endpoint_of
from tests.make import success, uuid
from tests.receiver.canaries import PRIVATE, Canaries, canaries
from tests.receiver.sender.remotes import BYPASSES, ODD_URLS, Handler, request
from tests.receiver.store.suite import arrival_of

pytestmark = pytest.mark.anyio

ALLOWED = "127.0.0.2"  # the one address that may be reached: a consumer, or who redirects to others
SECRET = new_secret(bytes(32))
GOOD = "https://good.example/"
EVERYTHING_INSIDE = ["127.0.0.0/8", "::1", *map(str, PRIVATE)]
STATUSES = (301, 302, 303, 307, 308)
REFUSED = {"blocked_address", "dns"}


class Names(AbstractResolver):
    """A name server whose answers are scripted by name; the last answer is for ever."""

    def __init__(self) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.others: list[str] = []
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        script = self.answers.get(host, [self.others])
        answer = script.pop(0) if len(script) > 1 else script[0]
        if not answer:
            raise OSError(None, "Domain name not found")
        return [
            ResolveResult(
                hostname="localhost",  # as if it were the end of a CNAME
                host=each,
                port=port,
                family=socket.AF_INET6 if ":" in each else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for each in answer
        ]

    async def close(self) -> None:
        raise AssertionError("whoever passes a resolver in closes it")


@dataclass
class Stage:
    """A whole receiver, its names, the canaries, and the consumer at the allowed address."""

    door: Door
    receiver: Assembled
    names: Names
    birds: Canaries
    locations: list[str]
    events: int = 0
    asked: dict[str, str] = field(default_factory=dict)  # endpoint: what leads inside through it

    @property
    def inside(self) -> list[str]:
        """The list of security.md §3.4, each with a port that a canary listens on."""
        port = self.birds.port
        urls = [f"{way}://{host}:{port}/" for host in BYPASSES for way in ("http", "https")]
        return urls + [odd.format(port=port) for odd in ODD_URLS]

    async def record(self) -> None:
        """One event for every endpoint."""
        self.events += 1
        of = uuid(self.events)
        await self.receiver.store.record(arrival_of(of, success(self.events), expected=2))

    async def tell(self) -> None:
        """Something for every endpoint, as the door has it, and all of it sent."""
        await self.door.tell(self)
        while await self.receiver.service.worker.tick():
            await self.receiver.service.worker.drain()

    async def last(self, endpoint: str) -> Delivery:
        """The newest delivery to an endpoint."""
        found = await self.receiver.store.deliveries(Query(endpoint=endpoint, limit=1))
        return await self.receiver.store.delivery(found.data[0].id)


@asynccontextmanager
async def stage(
    folder: Path, door: Door, allow: Sequence[str] = (ALLOWED,)
) -> AsyncIterator[Stage]:
    locations: list[str] = []
    names = Names()
    networks = ",".join(allow)
    async with (
        canaries(ALLOWED, consumer(locations)) as birds,
        assembled_over(folder, names, {"REELHOOK_ALLOW_NETWORKS": networks}) as receiver,
    ):
        names.answers["good.example"] = [[]]
        here = Stage(door, receiver, names, birds, locations)
        await here.record()  # there is something to replay before there are endpoints
        yield here


def consumer(locations: list[str]) -> Handler:
    """Takes a delivery at /, and redirects at /n/STATUS to the n-th location."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head, _ = await request(reader)
        path = head.split(" ")[1].strip("/")
        told = b"HTTP/1.1 204 X\r\nConnection: close\r\n\r\n"
        if path:
            number, _, status = path.partition("/")
            location = locations[int(number)].encode("utf-8", "replace")
            line = (
                b"HTTP/1.1 %s X\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )
            told = line % (status.encode(), location)
        writer.write(told)
        await writer.drain()

    return handle


# Doors


@dataclass(frozen=True)
class Door:
    """`open` brings a URL to an endpoint and gives its id, None when the URL is refused; `tell` is
    why something is sent there; `left` is what a delivery is after its first attempt failed."""

    open: Callable[[Stage, str], Awaitable[str | None]]
    tell: Callable[[Stage], Awaitable[None]]
    left: str = "pending"


async def create(here: Stage, url: str) -> str | None:
    return _accepted(await here.receiver.client.post("/v1/endpoints", json={"url": url}))


async def update(here: Stage, url: str) -> str | None:
    made = await create(here, GOOD)
    assert made is not None
    path = f"/v1/endpoints/{made}"
    changed = _accepted(await here.receiver.client.patch(path, json={"url": url}))
    if changed is None:
        assert (await here.receiver.store.endpoint(made)).url == GOOD
        await here.receiver.client.delete(path)
    return changed


async def past_the_api(here: Stage, url: str) -> str | None:
    """What was registered while other rules held."""
    made = await here.receiver.store.add_endpoint(endpoint_of(secret=SECRET, url=url))
    return made.id


def _accepted(answer: httpx.Response) -> str | None:
    found = answer.json()
    if answer.status_code == 422:
        assert found["code"] == "url_refused"
        return None
    assert answer.status_code in (200, 201)
    return str(found["id"])


async def try_each_out(here: Stage) -> None:
    for made in here.asked:
        answer = await here.receiver.client.post(f"/v1/endpoints/{made}/test")
        assert answer.status_code == 201


async def replay_the_first(here: Stage) -> None:
    events = (await here.receiver.store.events(Query(event_type="result.succeeded"))).data
    here.receiver.clock.advance(MINUTE)  # what still waits is left alone: it is due by then
    answer = await here.receiver.client.post(f"/v1/events/{events[-1].id}/replay", json={})
    assert answer.status_code == 200


DOORS = {
    "create": Door(create, Stage.record),
    "update": Door(update, Stage.record),
    "deliver": Door(past_the_api, Stage.record),
    "test": Door(past_the_api, try_each_out, left="dead"),  # a test is tried once
    "replay": Door(past_the_api, replay_the_first),
}


# Ways: each opens all endpoints through the door, has it send, and looks at what became of it


async def direct(here: Stage) -> None:
    for url in here.inside:
        if (made := await here.door.open(here, url)) is not None:
            here.asked[made] = url
    for address in here.birds.addresses:  # names lead to each of the canaries in turn
        here.names.others = [address]
        await here.tell()
        await all_refused(here)


async def redirected(here: Stage) -> None:
    here.locations.extend(here.inside)
    for number, url in enumerate(here.inside):
        status = STATUSES[number % len(STATUSES)]
        made = await here.door.open(here, f"http://{ALLOWED}:{here.birds.port}/{number}/{status}")
        assert made is not None
        here.asked[made] = url
    here.names.others = ["127.0.0.1"]
    await here.tell()
    await all_refused(here, {"redirect"}, opened=len(here.inside))


async def rebinding(here: Stage) -> None:
    opened = await _open_names(here, lambda inside: [[ALLOWED], [inside]])
    await here.tell()
    for made in here.asked:
        assert (await here.last(made)).state == "succeeded"
    await here.tell()
    await all_refused(here, {"blocked_address"}, opened=opened)


async def failing_first(here: Stage) -> None:
    """The lookup that failed at registration or at first decides nothing (GitLab, H1 632101)."""
    opened = await _open_names(here, lambda inside: [[], [inside]])
    await here.tell()
    await all_refused(here, {"dns"}, opened=opened)
    await here.tell()
    await all_refused(here, {"blocked_address"}, opened=opened)


async def mixed(here: Stage) -> None:
    opened = await _open_names(here, lambda inside: [[ALLOWED, inside]])
    opened += await _open_names(here, lambda inside: [[inside, ALLOWED]])
    opened += await _open_names(here, lambda inside: [["8.8.8.8", inside, ALLOWED]])
    await here.tell()
    await all_refused(here, {"blocked_address"}, opened=opened)


WAYS = {
    "direct": direct,
    "redirect": redirected,
    "rebinding": rebinding,
    "failing first": failing_first,
    "mixed answers": mixed,
}


async def _open_names(here: Stage, answers: Callable[[str], list[list[str]]]) -> int:
    """An endpoint for each address inside, at a name of its own; how many."""
    targets = [*here.birds.addresses, *(host.strip("[]") for host in BYPASSES)]
    for target in targets:
        name = f"n{len(here.names.answers)}.example"
        here.names.answers[name] = answers(target)
        made = await here.door.open(here, f"http://{name}:{here.birds.port}/")
        assert made is not None
        here.asked[made] = target
    return len(targets)


async def all_refused(here: Stage, ends: set[str] = REFUSED, opened: int | None = None) -> None:
    """No canary was hit, and each attempt says why: it will be made again."""
    assert here.birds.hits == {}
    assert opened is None or len(here.asked) == opened
    for made, inside in here.asked.items():
        delivery = await here.last(made)
        assert (delivery.state, delivery.last_error in ends) == (here.door.left, True), inside


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("door", DOORS)
async def test_no_way_through_any_door_leads_inside(tmp_path: Path, door: str, way: str) -> None:
    async with stage(tmp_path, DOORS[door]) as here:
        await WAYS[way](here)
        assert here.birds.hits == {}


@pytest.mark.parametrize("door", ["create", "update"])
async def test_only_names_that_have_to_be_looked_up_are_registered(
    tmp_path: Path, door: str
) -> None:
    async with stage(tmp_path, DOORS[door]) as here:
        names = {"a.127.0.0.1.nip.io", "localtest.me"}
        for url in here.inside:
            accepted = await here.door.open(here, url) is not None
            assert accepted == (_host(url) in names), url
        assert here.names.asked == []  # a lookup would tell strangers what is in our DNS


def _host(url: str) -> str:
    return url.split("/")[2].rsplit(":", 1)[0] if url.count("/") > 1 else ""


async def test_what_is_blocked_is_tried_again_and_dies_of_it(tmp_path: Path) -> None:
    async with stage(tmp_path, DOORS["create"]) as here:
        here.names.others = ["127.0.0.1"]
        spec = {"url": f"https://localtest.me:{here.birds.port}/", "schedule": [0, 1, 1]}
        made = (await here.receiver.client.post("/v1/endpoints", json=spec)).json()["id"]
        await here.tell()
        for _ in range(2):
            here.receiver.clock.advance(MINUTE)
            await here.receiver.service.worker.tick()
            await here.receiver.service.worker.drain()
        delivery = await here.last(made)
        assert (delivery.state, delivery.attempts) == ("dead", 3)
        for attempt in delivery.attempt_log or ():
            assert attempt.error == "blocked_address"
            assert "127.0.0.1" in (attempt.detail or "")
            assert "REELHOOK_ALLOW_NETWORKS" in (attempt.detail or "")
        assert here.birds.hits == {}


# Controls: the same doors and ways do reach a canary that is allowed


async def opened_to_all(here: Stage, url: str) -> None:
    made = await here.door.open(here, url)
    assert made is not None, url
    here.asked = {made: url}
    await here.tell()


@pytest.mark.parametrize("door", DOORS)
async def test_control_the_canaries_sing_when_they_may(tmp_path: Path, door: str) -> None:
    async with stage(tmp_path, DOORS[door], allow=EVERYTHING_INSIDE) as here:
        port = here.birds.port
        for number, address in enumerate(here.birds.addresses):
            shown = f"[{address}]" if ":" in address else address
            await opened_to_all(here, f"http://{shown}:{port}/")
            assert here.birds.hits[address]
            direct_hits = here.birds.hits.copy()
            name = f"n{number}.example"
            here.names.answers[name] = [[ALLOWED], [address]]
            await opened_to_all(here, f"http://{name}:{port}/")
            await here.tell()
            assert here.birds.hits[address] > direct_hits[address]
        assert set(here.birds.hits) == set(here.birds.addresses)


async def test_control_who_follows_redirects_is_led_inside(tmp_path: Path) -> None:
    async with (
        stage(tmp_path, DOORS["create"]) as here,
        httpx.AsyncClient(follow_redirects=True) as client,
    ):
        here.locations.append(f"http://127.0.0.1:{here.birds.port}/")
        for status in STATUSES:
            with pytest.raises(httpx.RemoteProtocolError):  # a canary says nothing
                await client.post(f"http://{ALLOWED}:{here.birds.port}/0/{status}", content=b"x")
        assert here.birds.hits == {"127.0.0.1": len(STATUSES)}
