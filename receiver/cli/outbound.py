"""Floor 5, assembly: `reelhook endpoints` and `deliveries`: what goes out, and where."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.output import Json, Limit, pairs_of, say, show, spec_of, table, with_client

if TYPE_CHECKING:
    from receiver.client import Client

endpoints = typer.Typer(no_args_is_help=True, help="Registered downstream callbacks.")
deliveries = typer.Typer(no_args_is_help=True, help="Events on their way to endpoints.")


@endpoints.command("add")
def endpoints_add(
    target: Annotated[str, typer.Argument(metavar="URL")],
    event: Annotated[
        list[str] | None, typer.Option("-e", "--event", help="Event type; * at an end is any.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--filter", help="field=value, such as tags.team=a.")
    ] = None,
    description: Annotated[str, typer.Option()] = "",
    v1a: Annotated[bool, typer.Option("--v1a", help="Sign with Ed25519 too.")] = False,
    ordered: Annotated[
        bool, typer.Option("--ordered", help="A task's events one after the other.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Register a downstream callback; prints its secret, once.

    reelhook endpoints add https://example.com/hooks -e 'result.*' -e task.completed
    """
    from receiver.endpoints import EndpointSpec

    spec = spec_of(
        EndpointSpec,
        url=target,
        event_types=event or ["*"],
        filters=dict(pairs_of(where or []).items()),
        description=description,
        signatures=["v1", "v1a"] if v1a else ["v1"],
        ordered=ordered,
    )

    shown = ("id", "url", "event_types", "filters", "state", "public_key")

    async def use(client: Client) -> None:
        endpoint = await client.add_endpoint(spec)
        show(endpoint, as_json, (*shown, "secret"))
        say("Keep the secret now: it is not shown again.")

    with_client(use)


@endpoints.command("preview")
def endpoints_preview(
    event: Annotated[
        list[str] | None, typer.Option("-e", "--event", help="Event type; * at an end is any.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option("--filter", help="field=value, such as tags.team=a.")
    ] = None,
    last: Annotated[int, typer.Option(min=1, max=1_000, help="How many events to look at.")] = 100,
    as_json: Json = False,
) -> None:
    """Show which of the latest events an endpoint would have got; nothing is sent.

    reelhook endpoints preview -e 'result.*' --filter tags.team=film
    """
    from receiver.endpoints import PreviewAsked

    asked = spec_of(
        PreviewAsked, event_types=event or ["*"], filters=pairs_of(where or []), last=last
    )

    async def use(client: Client) -> None:
        found = await client.preview(asked)
        table(found.data, as_json, ("id", "type", "task_id", "created_at"), "No event matches.")
        say(f"{found.matched} of the last {found.examined} events would have come.")

    with_client(use)


@endpoints.command("rotate-secret")
def endpoints_rotate_secret(
    endpoint_id: str,
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
def endpoints_list(limit: Limit = 50, as_json: Json = False) -> None:
    """List endpoints.

    reelhook endpoints list
    """
    columns = ("id", "state", "health.breaker", "url", "event_types", "reason")

    async def use(client: Client) -> None:
        page = await client.endpoints(limit=limit)
        table(page.data, as_json, columns, "No endpoints. Try `reelhook endpoints add URL`.")

    with_client(use)


@endpoints.command("show")
def endpoints_show(endpoint_id: str, as_json: Json = False) -> None:
    """Show an endpoint.

    reelhook endpoints show ep_…
    """

    async def use(client: Client) -> None:
        show(await client.endpoint(endpoint_id), as_json)

    with_client(use)


@endpoints.command("cancel")
def endpoints_cancel(endpoint_id: str) -> None:
    """Cancel what waits for an endpoint; what is under way is finished.

    Only by hand: an endpoint that is paused or disabled holds its queue otherwise.

    reelhook endpoints cancel ep_…
    """

    async def use(client: Client) -> None:
        canceled, more = 0, True
        while more:
            found = await client.cancel_queue(endpoint_id)
            canceled, more = canceled + found.canceled, found.more
        say(f"{canceled} deliveries to {endpoint_id} are canceled.")

    with_client(use)


@endpoints.command("remove")
def endpoints_remove(endpoint_id: str) -> None:
    """Forget an endpoint; what still waits for it is canceled.

    reelhook endpoints remove ep_…
    """

    async def use(client: Client) -> None:
        await client.delete_endpoint(endpoint_id)
        say(f"{endpoint_id} is removed and its queue canceled.")

    with_client(use)


def _mover(verb: str) -> Callable[[str], None]:
    def move(endpoint_id: str) -> None:
        async def use(client: Client) -> None:
            endpoint = await client.move_endpoint(endpoint_id, verb)
            say(f"{endpoint.id} is {endpoint.state}.")

        with_client(use)

    move.__doc__ = f"{verb.capitalize()} an endpoint.\n\nreelhook endpoints {verb} ep_…"
    return move


for _verb in ("pause", "resume", "enable", "disable"):
    endpoints.command(_verb)(_mover(_verb))


@deliveries.command("list")
def deliveries_list(
    state: Annotated[str | None, typer.Option(help="pending, dead, succeeded, …")] = None,
    endpoint: Annotated[str | None, typer.Option()] = None,
    task: Annotated[str | None, typer.Option()] = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """List deliveries, the newest first; `--state dead` is the dead-letter list.

    reelhook deliveries list --state dead
    """
    columns = ("id", "event_type", "state", "attempts", "last_error", "next_attempt_at")

    async def use(client: Client) -> None:
        page = await client.deliveries(state=state, endpoint=endpoint, task=task, limit=limit)
        table(page.data, as_json, columns, "No deliveries. Try `reelhook endpoints add URL`.")

    with_client(use)


@deliveries.command("show")
def deliveries_show(delivery_id: str, as_json: Json = False) -> None:
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
