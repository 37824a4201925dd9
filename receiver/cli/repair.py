"""Floor 5, assembly: what an operator does after an outage: dead letters, and sending again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.ledger import events
from receiver.cli.outbound import deliveries, endpoints
from receiver.cli.output import (
    FAILED,
    TIMED_OUT,
    Json,
    Limit,
    fail,
    moment_of,
    say,
    show,
    table,
    with_client,
)

# The groups of commands with those of this module.
__all__ = ["deliveries", "endpoints", "events"]

if TYPE_CHECKING:
    from receiver.client import Client

Since = Annotated[
    str | None, typer.Option("--since", help="2h, 30m, 7d ago; or 2026-11-20, or with a time; UTC.")
]
Until = Annotated[str | None, typer.Option("--until", help="Likewise; not included.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Of this endpoint alone.")]


@deliveries.command("dead")
def deliveries_dead(
    endpoint: Endpoint = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Count dead deliveries by endpoint and cause, the most first.

    reelhook deliveries dead --since 7d
    """
    columns = ("count", "endpoint_id", "error", "status", "oldest", "newest", "example")
    filters = {"endpoint": endpoint, "since": moment_of(since), "until": moment_of(until)}

    async def use(client: Client) -> None:
        page = await client.dead_letters(limit=limit, **filters)
        table(page.data, as_json, columns, "No dead deliveries.")

    with_client(use)


@endpoints.command("test")
def endpoints_test(
    endpoint_id: str,
    wait: Annotated[float, typer.Option(min=0, max=30, help="Seconds to wait for it.")] = 25,
    as_json: Json = False,
) -> None:
    """Send an endpoint a test event, once, and show what it answered.

    reelhook endpoints test ep_…
    """
    columns = ("id", "event_id", "state")

    async def use(client: Client) -> None:
        delivery = await client.test_endpoint(endpoint_id, wait=wait)
        show(delivery, as_json, columns)
        attempt = next(iter(delivery.attempt_log or []), None)
        if attempt is None:
            if wait:
                fail("It waits in the endpoint's queue; see it later with its id.", TIMED_OUT)
            return
        answered = "no answer" if attempt.status is None else f"status {attempt.status}"
        say(f"{answered} after {attempt.duration_ms} ms. {attempt.detail or ''}".rstrip())
        if delivery.first_succeeded_at is None:
            raise typer.Exit(FAILED)

    with_client(use)


@events.command("replay")
def events_replay(
    event_id: str,
    endpoint: Annotated[str | None, typer.Option("--endpoint", help="To this one alone.")] = None,
    as_json: Json = False,
) -> None:
    """Send an event again, under its id, to every endpoint that wants it today.

    reelhook events replay evt_…
    """

    async def use(client: Client) -> None:
        show(await client.replay(event_id, endpoint=endpoint), as_json)

    with_client(use)
