"""Floor 5, assembly: what an operator does after an outage: dead letters, and sending again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.outbound import deliveries
from receiver.cli.output import Json, Limit, moment_of, table, with_client

# The groups of commands with those of this module.
__all__ = ["deliveries"]

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
