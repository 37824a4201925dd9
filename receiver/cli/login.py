"""Floor 5, assembly: `reelhook login`: a link that opens the dashboard, once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli.output import Json, say, with_client

if TYPE_CHECKING:
    from receiver.client import Client


def login(
    open_it: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    as_json: Json = False,
) -> None:
    """Print a link that logs in to the dashboard once, within ten minutes.

    reelhook login --open
    """

    import json

    async def use(client: Client) -> None:
        link = await client.login_link()
        url = f"{client.url}{link.path}"
        if as_json:
            typer.echo(json.dumps({"url": url, "expires_at": link.expires_at.isoformat()}))
        else:
            typer.echo(url)
            say("Good once, for ten minutes.")
        if open_it:
            typer.launch(url)

    with_client(use)
