"""Floor 5, assembly: API tokens and the audit log: `reelhook tokens` and `reelhook audit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.completing import actions, scopes, token_ids
from receiver.cli.options import HowMany, Json, OfProject, Since, Until
from receiver.cli.output import done, listing, moment_of, say, show, spec_of, with_client

if TYPE_CHECKING:
    from receiver.client import Client

tokens = typer.Typer(no_args_is_help=True, help="API tokens: what opens a part of the API.")

Name = Annotated[str, typer.Argument(help="What it is for, for people.")]
TokenId = Annotated[str, typer.Argument(help="The token's id.", autocompletion=token_ids)]


@tokens.command("create")
def tokens_create(
    name: Name,
    scope: Annotated[
        str,
        typer.Option(
            "--scope",
            help="submit (the ledger), read (all but secrets), or admin (all).",
            autocompletion=scopes,
        ),
    ],
    project: Annotated[
        str | None, typer.Option("--project", help="For this project alone; else for all.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", help="90d, 12h from now; or 2027-01-01, or with a time; UTC."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make an API token and print it, once.

    reelhook tokens create renderer --scope submit --project film
    reelhook tokens create ci --scope admin --expires 30d --json
    """
    from receiver.client import ApiTokenAsked

    asked = spec_of(
        ApiTokenAsked,
        name=name,
        scope=scope,
        project=project,
        expires_at=moment_of(expires, ahead=True),
    )

    async def use(client: Client) -> None:
        made = await client.add_api_token(asked)
        show(made, as_json, ("id", "name", "scope", "project", "expires_at", "token"))
        say("Keep the token now: it is not shown again.")

    with_client(use)


@tokens.command("list")
def tokens_list(project: OfProject = None, limit: HowMany = 50, as_json: Json = False) -> None:
    """List API tokens, the newest first; of each its last characters, not the token.

    reelhook tokens list
    """
    columns = ("id", "name", "scope", "project", "hint", "last_used_at", "expires_at")

    async def use(client: Client) -> None:
        empty = "No API tokens. Try `reelhook tokens create NAME --scope submit`."
        filters = {"project": project}
        await listing(client.api_tokens, filters, limit, as_json, columns, empty)

    with_client(use)


@tokens.command("revoke")
def tokens_revoke(token_id: TokenId, as_json: Json = False) -> None:
    """Take a token back: it opens nothing from the next request on.

    reelhook tokens revoke tok_…
    """

    async def use(client: Client) -> None:
        await client.delete_api_token(token_id)
        done(f"{token_id} is revoked.", as_json, id=token_id, revoked=True)

    with_client(use)


def audit(
    actor: Annotated[
        str | None, typer.Option("--actor", help="What `admin`, or the token with this id, did.")
    ] = None,
    action: Annotated[
        str | None,
        typer.Option("--action", help="Such as endpoint.pause.", autocompletion=actions),
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="What was done to this one, by its id.")
    ] = None,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: HowMany = 50,
    as_json: Json = False,
) -> None:
    """Show what was done by hand, by whom, in which request; the latest first.

    reelhook audit --since 7d
    reelhook audit --target ep_… --json
    """
    columns = ("seq", "at", "actor", "actor_name", "action", "target", "project")
    filters = {
        "actor": actor,
        "action": action,
        "target": target,
        "project": project,
        "since": moment_of(since),
        "until": moment_of(until),
    }

    async def use(client: Client) -> None:
        empty = "Nothing was done by hand. `reelhook endpoints test ep_…` would be."
        await listing(client.audit, filters, limit, as_json, columns, empty)

    with_client(use)
