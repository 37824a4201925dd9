"""Floor 5, assembly: `reelhook callbacks`: what platforms posted, and taking it once more."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from receiver.cli import completing
from receiver.cli.options import CallbackId, DryRun, HowMany, Json, OfProject, OfTask, Since, Until
from receiver.cli.output import (
    SOME_FAILED,
    USAGE,
    done,
    fail,
    listing,
    moment_of,
    say,
    show,
    table,
    with_client,
)

if TYPE_CHECKING:
    from receiver.callbacks import Callback, Reprocessed
    from receiver.client import Client

callbacks = typer.Typer(no_args_is_help=True, help="What platforms posted, byte for byte.")

Outcome = Annotated[
    str | None,
    typer.Option(
        "--outcome", help="quarantined, conflict, expired, …", autocompletion=completing.outcomes
    ),
]
Orphans = Annotated[bool, typer.Option("--orphans", help="Only what names no task.")]


@callbacks.command("list")
def callbacks_list(
    outcome: Outcome = None,
    task: OfTask = None,
    orphans: Orphans = False,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: HowMany = 50,
    as_json: Json = False,
) -> None:
    """List inbound callbacks, the newest first.

    reelhook callbacks list --outcome quarantined
    """
    columns = ("id", "outcome", "received_at", "reason", "task_id", "size", "repeats")

    async def use(client: Client) -> None:
        filters = {
            "outcome": outcome,
            "task": task,
            "orphan": orphans or None,
            "project": project,
            "since": moment_of(since),
            "until": moment_of(until),
        }
        await listing(client.callbacks, filters, limit, as_json, columns, "No callbacks yet.")

    with_client(use)


@callbacks.command("show")
def callbacks_show(
    callback_id: CallbackId,
    raw: Annotated[
        bool, typer.Option("--raw", help="The exact bytes; into a file or a pipe.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a callback with its body.

    reelhook callbacks show cb_…
    reelhook callbacks show cb_… --raw > body
    """
    if raw:
        _write_body(callback_id)
        return

    async def use(client: Client) -> None:
        callback = await client.callback(callback_id)
        show(callback, as_json)
        if callback.body_dropped_at is not None:
            say("Its body is not kept any more (REELHOOK_RETENTION_RAW).")
        if callback.body_exact is False:
            say("This is not exactly what came: --raw gives the bytes.")

    with_client(use)


def _write_body(callback_id: str) -> None:
    # A terminal would act on what a stranger sent.
    if sys.stdout.isatty():
        fail("These bytes may be anything. Send them into a file or a pipe.", USAGE)

    async def use(client: Client) -> None:
        sys.stdout.buffer.write(await client.callback_body(callback_id))
        sys.stdout.buffer.flush()

    with_client(use)


@callbacks.command("reprocess")
def callbacks_reprocess(
    callback_id: Annotated[
        str | None,
        typer.Argument(help="One callback.", autocompletion=completing.callback_ids),
    ] = None,
    outcome: Outcome = None,
    task: OfTask = None,
    orphans: Orphans = False,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")] = 1_000,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Take kept bytes once more, after an upgrade that can read them.

    What they bring is recorded and delivered; what was recorded before is a duplicate.

    reelhook callbacks reprocess cb_…
    reelhook callbacks reprocess --outcome quarantined --dry-run
    """
    filters = {"outcome": outcome, "task": task, "orphan": orphans or None}
    if (callback_id is None) != any(filters.values()):
        fail("Name one callback, or those to take with --outcome, --task or --orphans.", USAGE)

    async def use(client: Client) -> None:
        if callback_id is not None:
            _report([await client.reprocess(callback_id, dry_run=dry_run)], as_json)
        elif not await _reprocess_all(client, filters, limit, dry_run, as_json):
            raise typer.Exit(SOME_FAILED)

    with_client(use)


@callbacks.command("remove")
def callbacks_remove(callback_id: CallbackId, as_json: Json = False) -> None:
    """Drop a callback that brought nothing, with its bytes.

    reelhook callbacks remove cb_…
    """

    async def use(client: Client) -> None:
        await client.delete_callback(callback_id)
        done(f"{callback_id} is gone.", as_json, id=callback_id, removed=True)

    with_client(use)


async def _reprocess_all(
    client: Client, filters: dict[str, Any], limit: int, dry_run: bool, as_json: bool
) -> bool:
    from receiver.client import ApiRefused

    found, more = await _found(client, filters, limit)
    if not found:
        say("There is nothing to reprocess.")
        return True
    taken: list[Reprocessed] = []
    refused = 0
    for callback in reversed(found):  # in the order in which they came
        try:
            taken.append(await client.reprocess(callback.id, dry_run=dry_run))
        except ApiRefused as error:
            refused += 1
            say(f"{callback.id}: {error}")
    if taken:
        _report(taken, as_json)
    counts = Counter(str(one.status) for one in taken)
    told = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(f"{len(found)} {'would be ' * dry_run}reprocessed: {told or 'none'}, {refused} refused.")
    if more:
        say(f"There are older ones: --limit takes more than {limit} at once.")
    return not refused


async def _found(
    client: Client, filters: dict[str, Any], limit: int
) -> tuple[list[Callback], bool]:
    found: list[Callback] = []
    cursor: str | None = ""
    while cursor is not None and len(found) < limit:
        size = min(limit - len(found), 200)
        page = await client.callbacks(**filters, limit=size, cursor=cursor or None)
        found += page.data
        cursor = page.next_cursor
    return found, cursor is not None


def _report(taken: list[Reprocessed], as_json: bool) -> None:
    table(taken, as_json, ("id", "status", "results", "outcome", "reason", "task_id"), "")
