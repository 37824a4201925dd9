"""Floor 5, assembly: a receiver for your own tests: pytest finds the fixtures here. pytest only.

pytest imports this module in every session of an environment that has Reelhook, so all else is
imported when a fixture is asked for. docs/python.md shows them at work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

    from receiver.client import Client, Delivery, Endpoint, Event

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReceiverInTest:
    """A receiver that runs beside the test, in a thread, on a real socket of this machine.

    `environ` is what lets programs find it: `Submitter.from_env` and the `reelhook` command.
    """

    url: str
    environ: dict[str, str] = field(repr=False)
    portal: BlockingPortal = field(repr=False)

    def client(self) -> Client:
        """A client for an async test; use it with `async with`."""
        from receiver.client import Client

        return Client(self.url, self.environ["REELHOOK_ADMIN_TOKEN"])

    def ask(self, use: Callable[[Client], Awaitable[T]]) -> T:
        """What `use` has of a client, for a test that is not async."""

        async def run() -> T:
            async with self.client() as client:
                return await use(client)

        return self.portal.call(run)

    def add_endpoint(self, url: str, events: Sequence[str] = ("*",), **rest: Any) -> Endpoint:
        """Register a downstream callback; the answer has its `secret`."""
        from receiver.client import EndpointSpec

        spec = EndpointSpec(url=url, event_types=list(events), **rest)
        return self.ask(lambda client: client.add_endpoint(spec))

    def events(self, **filters: Any) -> list[Event]:
        """What was told so far, the oldest first, each with its payload."""

        async def use(client: Client) -> list[Event]:
            page = await client.events(**filters)
            return [await client.event(event.id) for event in reversed(page.data)]

        return self.ask(use)

    def delivered(self, timeout: float = 10) -> list[Delivery]:
        """Every delivery, once none of them waits or is sent. Raises TimeoutError."""

        async def use(client: Client) -> list[Delivery]:
            import asyncio

            async with asyncio.timeout(timeout):
                while True:
                    page = await client.deliveries(limit=200)
                    if all(one.state not in ("pending", "sending") for one in page.data):
                        return page.data
                    await asyncio.sleep(0.02)

        return self.ask(use)


@pytest.fixture
def reelhook_settings() -> dict[str, str]:
    """Variables of `reelhook_receiver`. A fixture of yours, of the same name, takes its place."""
    return {}


@pytest.fixture
def reelhook_receiver(
    tmp_path_factory: pytest.TempPathFactory, reelhook_settings: dict[str, str]
) -> Iterator[ReceiverInTest]:
    """A receiver of this test alone, empty, in this process. It delivers to this machine."""
    from anyio.from_thread import start_blocking_portal

    from receiver.inprocess import receiving
    from receiver.log import for_tests
    from receiver.settings import Settings, new_key

    environ = {
        "PORT": "0",
        "REELHOOK_DATA_DIR": str(tmp_path_factory.mktemp("reelhook")),
        "REELHOOK_ADMIN_TOKEN": new_key(),
        "REELHOOK_SIGNING_KEYS": new_key(),
        "REELHOOK_ALLOW_NETWORKS": "127.0.0.0/8,::1/128",
        "REELHOOK_DELIVERY_SCHEDULE": "0,1,1",
        **reelhook_settings,
    }
    opened = receiving(Settings.read(environ), for_tests())
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(opened) as listening,
    ):
        names = ("REELHOOK_DATA_DIR", "REELHOOK_ADMIN_TOKEN", "REELHOOK_SIGNING_KEYS")
        shown = {
            **{name: environ[name] for name in names},
            "REELHOOK_URL": listening.admin_url,
            "REELHOOK_PUBLIC_URL": listening.public_url,
        }
        yield ReceiverInTest(listening.admin_url, shown, portal)
