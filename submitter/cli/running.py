"""Floor 5, assembly: `reconcile`, `demo`, `dev`: what runs beside the receiver."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submitter.cli.output import (
    FAILED,
    SOME_FAILED,
    USAGE,
    AlwaysJson,
    Json,
    exit_codes,
    fail,
    platform_named,
)

if TYPE_CHECKING:
    from submitter.reconcile import Polled

SLOWEST, FASTEST = 0.1, 1000.0
MOST_PORT = 65_535


def reconcile(
    once: Annotated[bool, typer.Option("--once", help="Poll what is due, then exit.")] = False,
    limit: Annotated[
        int, typer.Option(min=1, max=100, help="Tasks of a platform in work at once.")
    ] = 8,
    rate: Annotated[
        list[str] | None,
        typer.Option(help="Questions a second: 5, or for one platform nanogpt=2. Default 5."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Fetch results that were not called back, until it is stopped.

    Every platform whose key is set is asked, each at its own rate; NanoGPT never calls back, so all
    its results come this way. Without --once it never ends by itself, so that it can stand beside
    the receiver in a Procfile: it waits for a receiver that does not answer, and idles without
    RUNWARE_API_KEY and NANOGPT_API_KEY.

    reelhook reconcile
    reelhook reconcile --once --json
    reelhook reconcile --rate 5 --rate nanogpt=2
    """
    import asyncio
    from collections import Counter

    from submitter.reconcile import Found
    from submitter.reconciler import Options, drain, keep_on

    counts: Counter[Found] = Counter()
    options = Options(limit=limit, rates=_rates(rate or []))

    def tell(polled: Polled) -> None:
        counts[polled.found] += 1
        _tell_polled(polled, as_json)

    def note(text: str) -> None:
        typer.echo(text, err=True)

    with exit_codes():
        if not once:
            asyncio.run(keep_on(os.environ, options, tell=tell, note=note))
            return
        asyncio.run(drain(os.environ, options, tell=tell, note=note))
    if not as_json and not counts:
        typer.echo("Nothing is due.", err=True)
    if failed := counts.total() - counts[Found.POSTED] - counts[Found.UNKNOWN]:
        raise typer.Exit(SOME_FAILED if failed < counts.total() else FAILED)


def _rates(texts: Sequence[str]) -> dict[str, float]:
    """Questions a second by platform; a bare number is that of all which are not named."""
    from submitter.platforms.catalogue import SHIPPED

    rates: dict[str, float] = {}
    for text in sorted(texts, key=lambda text: "=" in text):
        name, equals, number = text.rpartition("=")
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not SLOWEST <= rate <= FASTEST:
            said = f"--rate {text!r}: write a number between {SLOWEST:g} and {FASTEST:g}."
            fail(said, USAGE)
        names = [platform_named(name)] if equals else [*SHIPPED]
        rates |= dict.fromkeys(names, rate)
    return rates


def _tell_polled(polled: Polled, as_json: bool) -> None:
    if as_json:
        shown = {"task": polled.task, "found": polled.found, "detail": polled.detail or None}
        typer.echo(json.dumps(shown))
    else:
        why = f": {polled.detail}" if polled.detail else ""
        typer.echo(f"{polled.task}  {polled.found}{why}")


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running until Ctrl-C.")] = False,
    as_json: Json = False,
) -> None:
    """Run the main job on this machine alone: receiver, simulator, reconciler, checking consumer.

    reelhook demo
    reelhook demo --keep
    """
    import asyncio

    from submitter.demo import run

    try:
        raise typer.Exit(asyncio.run(run(keep=keep, as_json=as_json)))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def dev(
    tunnel: Annotated[
        Literal["auto", "cloudflared", "ngrok", "ssh"] | None,
        typer.Option(help="The program that makes us reachable."),
    ] = None,
    ssh_destination: Annotated[str, typer.Option(help="user@host for --tunnel ssh.")] = "",
    ssh_public_url: Annotated[
        str | None, typer.Option(help="Its https URL; {port} allowed.")
    ] = None,
    ssh_remote_port: Annotated[
        int | None, typer.Option(min=0, max=MOST_PORT, help="Port there; 0 takes one.")
    ] = None,
    ssh_bind: Annotated[str, typer.Option(help="Address there.")] = "",
    ssh_option: Annotated[list[str] | None, typer.Option(help="Passed to ssh.")] = None,
    port: Annotated[
        int,
        typer.Option(min=0, max=MOST_PORT, help="The public routes' port; 0 takes a free one."),
    ] = 0,
    admin_port: Annotated[
        int, typer.Option(min=0, max=MOST_PORT, help="The port for all else.")
    ] = 0,
    check: Annotated[bool, typer.Option(help="Look from outside before it is ready.")] = True,
    _as_json: AlwaysJson = False,
) -> None:
    """Run the receiver for development, reachable through a tunnel.

    reelhook dev --tunnel cloudflared
    reelhook dev --tunnel ssh --ssh-destination nokey@localhost.run
    """
    from functools import partial

    import anyio

    from submitter.dev import DevOptions
    from submitter.dev import dev as flow
    from submitter.notices import Ready
    from submitter.tunnel import Ssh, TunnelRefused

    try:
        ssh = (
            Ssh(ssh_destination, ssh_public_url, ssh_remote_port, ssh_bind, tuple(ssh_option or ()))
            if ssh_destination
            else None
        )
    except TunnelRefused as error:
        fail(str(error), USAGE)

    def tell(event: Any) -> None:
        typer.echo(event.text, err=True)
        if isinstance(event, Ready):
            typer.echo(json.dumps(event.as_json()))

    options = DevOptions(tunnel=tunnel, ssh=ssh, port=port, admin_port=admin_port, check=check)
    raise typer.Exit(anyio.run(partial(flow, options, notify=tell)))
