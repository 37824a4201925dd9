"""Floor 5, assembly: `reelhook prune`: what keeps the receiver's file small."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from receiver.cli.options import DryRun, Json, Yes
from receiver.cli.output import fail, say, show, with_client

if TYPE_CHECKING:
    from receiver.client import Client, Pruned


def prune(
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Drop what is older than the retention settings allow, now instead of within hours.

    reelhook prune --dry-run
    reelhook prune --yes
    """

    async def use(client: Client) -> None:
        if dry_run or (not yes and sys.stdin.isatty()):
            counted = await _whole(client, dry_run=True)
            if dry_run:
                show(counted, as_json)
                return
            _ask(counted)
        show(await _whole(client, dry_run=False), as_json)

    with_client(use)


async def _whole(client: Client, *, dry_run: bool) -> Pruned:
    found = await client.prune(dry_run=dry_run)
    while found.next_cursor is not None:
        say(f"{_rows(found):,} so far …")
        more = await client.prune(dry_run=dry_run, cursor=found.next_cursor)
        sums = {name: getattr(found, name) + getattr(more, name) for name in _counts(found)}
        found = more.model_copy(update=sums)
    return found


def _counts(pruned: Pruned) -> dict[str, int]:
    return pruned.model_dump(exclude={"dry_run", "next_cursor"})


def _rows(pruned: Pruned) -> int:
    return sum(_counts(pruned).values()) - pruned.freed_bytes


def _ask(counted: Pruned) -> None:
    parts = [f"{count:,} {name}" for name, count in _counts(counted).items() if count]
    if not parts:
        fail("Nothing is older than the retention settings allow.", 0)
    typer.confirm(f"Drop {', '.join(parts)}?", abort=True, err=True)
