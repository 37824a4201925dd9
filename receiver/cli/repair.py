"""Floor 5, assembly: what an operator does after an outage: dead letters, and sending again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from receiver.cli import completing
from receiver.cli.ledger import events
from receiver.cli.options import (
    DryRun,
    EndpointId,
    EventId,
    HowMany,
    JobId,
    Json,
    Limit,
    OfAnswer,
    OfCause,
    OfEndpoint,
    OfProject,
    OfTask,
    OfType,
    Since,
    Until,
    Yes,
)
from receiver.cli.outbound import deliveries, endpoints
from receiver.cli.output import (
    FAILED,
    OK,
    TIMED_OUT,
    USAGE,
    confirm,
    fail,
    listing,
    moment_of,
    say,
    show,
    spec_of,
    table,
    with_client,
)

# The groups of commands with those of this module.
__all__ = ["deliveries", "endpoints", "events", "jobs"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from receiver.client import Client, Counted, Job

jobs = typer.Typer(no_args_is_help=True, help="What is sent again in bulk, and how far it is.")

UNWANTED: Final = (
    "No endpoint wants it, so it was sent to none (a `reelhook listen` that runs has it again).\n"
    "See what each wants: reelhook endpoints list\n"
    "Add one, or change one's events (`reelhook endpoints change`):"
    " reelhook endpoints add https://example.com/hooks -e 'result.*'\n"
    "Then send it again: reelhook events replay "
)

HELD: Final = {
    "paused": "reelhook endpoints resume ",
    "disabled": "reelhook endpoints enable ",
}

AtMost = Annotated[
    int | None, typer.Option("--limit", min=1, help="Send so many at most, the oldest first.")
]


@deliveries.command("dead")
def deliveries_dead(
    endpoint: OfEndpoint = None,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Count dead deliveries by endpoint and cause, the most first.

    reelhook deliveries dead --since 7d
    """
    columns = ("count", "endpoint_id", "error", "status", "oldest", "newest", "example")
    filters = {
        "endpoint": endpoint,
        "project": project,
        "since": moment_of(since),
        "until": moment_of(until),
    }

    async def use(client: Client) -> None:
        page = await client.dead_letters(limit=limit, **filters)
        table(page.data, as_json, columns, "No dead deliveries.")
        gone = {group.endpoint_id for group in page.data if group.endpoint_deleted}
        if gone and not as_json:
            say(f"{', '.join(sorted(gone))}: deleted, so what it left can't be sent again.")

    with_client(use)


@endpoints.command("test")
def endpoints_test(
    endpoint_id: EndpointId,
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
    event_id: EventId,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", help="To this one alone.", autocompletion=completing.endpoint_ids
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send an event again, under its id, to every endpoint that wants it today.

    reelhook events replay evt_…
    """

    async def use(client: Client) -> None:
        found = await client.replay(event_id, endpoint=endpoint)
        if found.deliveries or as_json:
            show(found, as_json)
        if not found.deliveries:
            say(f"{UNWANTED}{event_id}")

    with_client(use)


@deliveries.command("retry")
def deliveries_retry(
    delivery_id: Annotated[
        str | None,
        typer.Argument(help="One; or all of the options.", autocompletion=completing.delivery_ids),
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(help="dead, canceled or succeeded.", autocompletion=completing.states),
    ] = None,
    endpoint: OfEndpoint = None,
    task: OfTask = None,
    event_type: OfType = None,
    last_error: OfCause = None,
    last_status: OfAnswer = None,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: AtMost = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send a settled delivery again, succeeded ones too; or all of a list, as a job.

    reelhook deliveries retry dlv_…
    reelhook deliveries retry --state dead --endpoint ep_… --since 2h
    reelhook deliveries retry --state dead --last-status 503 --dry-run
    """
    filters = {
        "state": state,
        "endpoint": endpoint,
        "task": task,
        "event_type": event_type,
        "last_error": last_error,
        "last_status": last_status,
        "project": project,
        "since": moment_of(since),
        "until": moment_of(until),
        "limit": limit,
    }
    given = {name: value for name, value in filters.items() if value is not None}
    if (delivery_id is None) == (not given):
        fail("Name one delivery, or say which with options such as --state dead.", USAGE)
    if delivery_id is not None:
        _retry_one(delivery_id, as_json)
        return
    from receiver.client import RetryAsked

    asked = spec_of(RetryAsked, **given)

    async def ask(client: Client, dry: bool) -> Job | Counted:
        return await client.retry_deliveries(asked.model_copy(update={"dry_run": dry}))

    _in_bulk(ask, dry_run, yes, as_json)


def _retry_one(delivery_id: str, as_json: bool) -> None:
    async def use(client: Client) -> None:
        found = await client.move_delivery(delivery_id, "retry")
        show(found, as_json, ("id", "state"))
        endpoint = await client.endpoint(found.endpoint_id)
        if endpoint.state in HELD:
            then = f"{HELD[endpoint.state]}{endpoint.id}"
            say(f"It waits, since its endpoint is {endpoint.state}. Then: {then}")

    with_client(use)


@endpoints.command("recover")
def endpoints_recover(
    endpoint_id: EndpointId,
    since: Annotated[str, typer.Option("--since", help="2h, 30m, 7d ago; or a time, in UTC.")],
    until: Until = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Also what it wants today and was not meant for it.")
    ] = False,
    limit: AtMost = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Send an endpoint all that it did not get of the events since then, as a job.

    reelhook endpoints recover ep_… --since 2h
    """
    from receiver.client import RecoverAsked

    asked = spec_of(
        RecoverAsked,
        since=moment_of(since),
        until=moment_of(until),
        missing=missing,
        limit=limit,
    )

    async def ask(client: Client, dry: bool) -> Job | Counted:
        return await client.recover(endpoint_id, asked.model_copy(update={"dry_run": dry}))

    _in_bulk(ask, dry_run, yes, as_json)


def _in_bulk(
    ask: Callable[[Client, bool], Awaitable[Job | Counted]], dry_run: bool, yes: bool, as_json: bool
) -> None:
    async def use(client: Client) -> None:
        if dry_run:
            show(await ask(client, True), as_json)
            return
        if not yes:
            _confirm(await ask(client, True))
        job = await ask(client, False)
        show(job, as_json, ("id", "state", "total"))
        if not as_json:
            say(f"See how far it is: reelhook jobs show {job.model_dump()['id']}")

    with_client(use)


def _confirm(counted: Job | Counted) -> None:
    found = counted.model_dump()
    if not found["count"] and found["complete"]:
        fail("There is nothing to send.", OK)
    more = "" if found["complete"] else "more than "
    if sys.stdin.isatty():
        confirm(f"Send {more}{found['count']:,} deliveries again?")


@jobs.command("list")
def jobs_list(project: OfProject = None, limit: HowMany = 50, as_json: Json = False) -> None:
    """List jobs, the newest first.

    reelhook jobs list
    """
    columns = ("id", "kind", "state", "done", "total", "created_at", "note")

    async def use(client: Client) -> None:
        empty = "No jobs. `reelhook deliveries retry` makes one."
        await listing(client.jobs, {"project": project}, limit, as_json, columns, empty)

    with_client(use)


@jobs.command("show")
def jobs_show(job_id: JobId, as_json: Json = False) -> None:
    """Show a job, and how far it is.

    reelhook jobs show job_…
    """

    async def use(client: Client) -> None:
        show(await client.job(job_id), as_json)

    with_client(use)


@jobs.command("cancel")
def jobs_cancel(job_id: JobId, as_json: Json = False) -> None:
    """Let a job go no further; what it sent again goes on.

    reelhook jobs cancel job_…
    """

    async def use(client: Client) -> None:
        show(await client.cancel_job(job_id), as_json, ("id", "state", "done", "total"))

    with_client(use)
