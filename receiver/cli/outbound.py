"""Floor 5, assembly: `reelhook endpoints` and `deliveries`: what goes out, and where."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from receiver.cli import completing
from receiver.cli.options import (
    DeliveryId,
    DryRun,
    EndpointId,
    HowMany,
    Json,
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
from receiver.cli.output import (
    USAGE,
    confirm,
    done,
    fail,
    listing,
    moment_of,
    pairs_of,
    patterns_of,
    say,
    show,
    spec_of,
    table,
    with_client,
)
from receiver.shown import inert

if TYPE_CHECKING:
    from receiver.client import Client, Delivery

COUNTED: Final = 10_000  # beyond that many it is enough to know that there are more

endpoints = typer.Typer(no_args_is_help=True, help="Registered downstream callbacks.")
deliveries = typer.Typer(no_args_is_help=True, help="Events on their way to endpoints.")


Events = Annotated[
    list[str] | None,
    typer.Option(
        "-e",
        "--event",
        help="Event type; * at an end is any.",
        autocompletion=completing.event_types,
    ),
]
Filters = Annotated[
    list[str] | None,
    typer.Option("--filter", help="field=value, such as tags.team=a; the same twice: either."),
]
Description = Annotated[str | None, typer.Option(help="What it is for, in your words.")]
Headers = Annotated[
    list[str] | None, typer.Option("--header", help="name=value, sent with every delivery.")
]
Rate = Annotated[float | None, typer.Option("--rate", help="Deliveries a second at most.")]
Concurrency = Annotated[int | None, typer.Option(help="Deliveries at once at most.")]
Schedule = Annotated[
    str | None, typer.Option(help="Seconds before each try, such as 0,5,60; default: for 3 days.")
]
SHOWN: Final = ("id", "url", "event_types", "filters", "state", "public_key")


@endpoints.command("add")
def endpoints_add(
    target: Annotated[str, typer.Argument(metavar="URL", help="https, or in an allowed network.")],
    event: Events = None,
    where: Filters = None,
    description: Description = None,
    header: Headers = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    schedule: Schedule = None,
    v1a: Annotated[bool, typer.Option("--v1a", help="Sign with Ed25519 too.")] = False,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="A task's events one after the other.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register a downstream callback; prints its secret, once.

    reelhook endpoints add https://example.com/hooks -e 'result.*' -e task.completed
    reelhook endpoints add https://example.com/hooks --filter tags.team=film --rate 5 --ordered
    """
    from receiver.endpoints import EndpointSpec

    given = _given(target, event, where, description, header, rate, concurrency, schedule)
    signatures = ["v1", "v1a"] if v1a else ["v1"]
    spec = spec_of(EndpointSpec, **given, signatures=signatures, ordered=ordered)

    async def use(client: Client) -> None:
        show(await client.add_endpoint(spec), as_json, (*SHOWN, "secret"))
        say("Keep the secret now: it is not shown again.")

    with_client(use)


@endpoints.command("change")
def endpoints_change(
    endpoint_id: EndpointId,
    url: Annotated[str | None, typer.Option(help="Where its events go from now on.")] = None,
    event: Events = None,
    where: Filters = None,
    description: Description = None,
    header: Headers = None,
    rate: Rate = None,
    concurrency: Concurrency = None,
    schedule: Schedule = None,
    v1a: Annotated[bool | None, typer.Option(help="Sign with Ed25519 too.")] = None,
    ordered: Annotated[
        bool | None, typer.Option(help="A task's events one after the other.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Change what is named of an endpoint; the rest stays as it is.

    reelhook endpoints change ep_… --url https://example.com/hooks
    reelhook endpoints change ep_… -e 'result.*' --no-ordered
    """
    from receiver.endpoints import EndpointPatch

    given = _given(url, event, where, description, header, rate, concurrency, schedule)
    if v1a is not None:
        given["signatures"] = ["v1", "v1a"] if v1a else ["v1"]
    if ordered is not None:
        given["ordered"] = ordered
    if not given:
        fail("Say what to change, such as --url or --event.", USAGE)
    patch = spec_of(EndpointPatch, **given)

    async def use(client: Client) -> None:
        show(await client.change_endpoint(endpoint_id, patch), as_json, SHOWN)

    with_client(use)


def _given(
    url: str | None,
    event: list[str] | None,
    where: list[str] | None,
    description: str | None,
    header: list[str] | None,
    rate: float | None,
    concurrency: int | None,
    schedule: str | None,
) -> dict[str, Any]:
    values = {
        "url": url,
        "event_types": event or None,
        "filters": patterns_of(where) if where else None,
        "description": description,
        "headers": pairs_of(header, "a header as name=value") if header else None,
        "rate_limit": rate,
        "concurrency": concurrency,
        "schedule": schedule.split(",") if schedule else None,
    }
    return {name: value for name, value in values.items() if value is not None}


@endpoints.command("preview")
def endpoints_preview(
    event: Events = None,
    where: Filters = None,
    last: Annotated[int, typer.Option(min=1, max=1_000, help="How many events to look at.")] = 100,
    as_json: Json = False,
) -> None:
    """Show which of the latest events an endpoint would have got; nothing is sent.

    reelhook endpoints preview -e 'result.*' --filter tags.team=film
    """
    from receiver.endpoints import PreviewAsked

    asked = spec_of(
        PreviewAsked, event_types=event or ["*"], filters=patterns_of(where or []), last=last
    )

    async def use(client: Client) -> None:
        found = await client.preview(asked)
        table(found.data, as_json, ("id", "type", "task_id", "created_at"), "No event matches.")
        say(f"{found.matched} of the last {found.examined} events would have come.")

    with_client(use)


@endpoints.command("rotate-secret")
def endpoints_rotate_secret(
    endpoint_id: EndpointId,
    overlap: Annotated[
        int, typer.Option(min=0, max=604_800, help="Seconds that the old one signs along.")
    ] = 86_400,
    as_json: Json = False,
) -> None:
    """Make a new secret, printed once; the one before signs along for a day.

    With --overlap 0 every earlier one ends at once, as after a leak. An Ed25519 key is new too.

    reelhook endpoints rotate-secret ep_…
    """
    from receiver.endpoints import RotateAsked

    async def use(client: Client) -> None:
        endpoint = await client.rotate_secret(endpoint_id, RotateAsked(overlap_s=overlap))
        show(endpoint, as_json, ("id", "overlap_until", "public_key", "secret"))
        say("Keep the secret now: it is not shown again.")

    with_client(use)


@endpoints.command("list")
def endpoints_list(project: OfProject = None, limit: HowMany = 50, as_json: Json = False) -> None:
    """List endpoints.

    reelhook endpoints list
    """
    columns = ("id", "state", "health.breaker", "url", "event_types", "reason")

    async def use(client: Client) -> None:
        filters, empty = {"project": project}, "No endpoints. Try `reelhook endpoints add URL`."
        await listing(client.endpoints, filters, limit, as_json, columns, empty)

    with_client(use)


@endpoints.command("show")
def endpoints_show(endpoint_id: EndpointId, as_json: Json = False) -> None:
    """Show an endpoint.

    reelhook endpoints show ep_…
    """

    async def use(client: Client) -> None:
        show(await client.endpoint(endpoint_id), as_json)

    with_client(use)


@endpoints.command("cancel")
def endpoints_cancel(
    endpoint_id: EndpointId, dry_run: DryRun = False, yes: Yes = False, as_json: Json = False
) -> None:
    """Cancel what waits for an endpoint; what is under way is finished.

    Only by hand: an endpoint that is paused or disabled holds its queue otherwise.

    reelhook endpoints cancel ep_… --dry-run
    reelhook endpoints cancel ep_…
    """

    async def use(client: Client) -> None:
        if dry_run or (not yes and sys.stdin.isatty()):
            count, more = await _waiting(client, endpoint_id)
            told = f"{'more than ' * more}{count:,} deliveries to {endpoint_id}"
            if dry_run:
                done(f"{told} would be canceled.", as_json, count=count, complete=not more)
                return
            confirm(f"Cancel {told}?")
        canceled, more = 0, True
        while more:
            found = await client.cancel_queue(endpoint_id)
            canceled, more = canceled + found.canceled, found.more
        said = f"{canceled} deliveries to {endpoint_id} are canceled."
        done(said, as_json, id=endpoint_id, canceled=canceled)

    with_client(use)


async def _waiting(client: Client, endpoint_id: str) -> tuple[int, bool]:
    """How many deliveries wait, and whether there are more than that."""
    await client.endpoint(endpoint_id)  # or it is not found
    count, cursor = 0, ""
    while count < COUNTED:
        page = await client.deliveries(
            endpoint=endpoint_id, state="pending", limit=200, cursor=cursor or None
        )
        count += len(page.data)
        if page.next_cursor is None:
            return count, False
        cursor = page.next_cursor
    return count, True


@endpoints.command("remove")
def endpoints_remove(endpoint_id: EndpointId, yes: Yes = False, as_json: Json = False) -> None:
    """Forget an endpoint; what still waits for it is canceled.

    reelhook endpoints remove ep_…
    """

    async def use(client: Client) -> None:
        if not yes and sys.stdin.isatty():
            url = inert((await client.endpoint(endpoint_id)).url)
            confirm(f"Forget {url}? What waits for it, or died there, can't be sent any more.")
        await client.delete_endpoint(endpoint_id)
        said = f"{endpoint_id} is removed and its queue canceled."
        done(said, as_json, id=endpoint_id, removed=True)

    with_client(use)


MOVES: Final = {
    "pause": "Send an endpoint nothing for a while; what is for it waits until it is resumed.",
    "resume": "Send to an endpoint again that was paused; what waited goes out.",
    "enable": "Send to an endpoint again that was disabled, also by itself; what waited goes out.",
    "disable": "Send an endpoint nothing until it is enabled; what is for it waits.",
}


def _mover(verb: str, meaning: str) -> Callable[[str, bool], None]:
    def move(endpoint_id: EndpointId, as_json: Json = False) -> None:
        async def use(client: Client) -> None:
            endpoint = await client.move_endpoint(endpoint_id, verb)
            if as_json:
                show(endpoint, as_json)
            else:
                say(f"{endpoint.id} is {endpoint.state}.")

        with_client(use)

    move.__doc__ = f"{meaning}\n\nreelhook endpoints {verb} ep_…"
    return move


for _verb, _meaning in MOVES.items():
    endpoints.command(_verb)(_mover(_verb, _meaning))


@deliveries.command("list")
def deliveries_list(
    state: Annotated[
        str | None,
        typer.Option(help="pending, dead, succeeded, …", autocompletion=completing.states),
    ] = None,
    endpoint: OfEndpoint = None,
    task: OfTask = None,
    event_type: OfType = None,
    last_error: OfCause = None,
    last_status: OfAnswer = None,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: HowMany = 50,
    as_json: Json = False,
) -> None:
    """List deliveries, the newest first; `--state dead` is the dead-letter list.

    reelhook deliveries list --state dead
    """
    shown = ("id", "event_type", "state", "attempts", ("cause", _cause), "next_attempt_at")
    columns = (*shown, "endpoint_id")

    async def use(client: Client) -> None:
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
        }
        empty = "No deliveries. Try `reelhook endpoints add URL`."
        await listing(client.deliveries, filters, limit, as_json, columns, empty)

    with_client(use)


def _cause(delivery: Delivery) -> str | None:
    """Why the last attempt failed, with what was answered."""
    if delivery.last_error is None:
        return None
    return " ".join(str(part) for part in (delivery.last_error, delivery.last_status) if part)


@deliveries.command("show")
def deliveries_show(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Show a delivery with each attempt.

    reelhook deliveries show dlv_…
    """
    columns = ("number", "at", "status", "error", "duration_ms", "detail")

    async def use(client: Client) -> None:
        delivery = await client.delivery(delivery_id)
        attempts = delivery.attempt_log or []
        show(delivery if as_json else delivery.model_copy(update={"attempt_log": None}), as_json)
        if not as_json:
            table(attempts, False, columns, "No attempt yet.")

    with_client(use)


@deliveries.command("cancel")
def deliveries_cancel(delivery_id: DeliveryId, as_json: Json = False) -> None:
    """Cancel a delivery that waits; `reelhook deliveries retry` takes it up again.

    reelhook deliveries cancel dlv_…
    """

    async def use(client: Client) -> None:
        show(await client.move_delivery(delivery_id, "cancel"), as_json, ("id", "state"))

    with_client(use)
