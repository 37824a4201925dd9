"""Floor 5, assembly: `reelhook prune` and `doctor`: what keeps a receiver small and well."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

import typer

from receiver.cli.options import DryRun, Json, Yes
from receiver.cli.output import FAILED, confirm, fail, say, show, with_client
from receiver.shown import inert

if TYPE_CHECKING:
    from receiver.client import Client, Pruned
    from receiver.doctor.findings import Finding

NOTHING: Final = "Nothing is older than the retention settings allow."


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
                if not (as_json or _rows(counted)):
                    say(NOTHING)
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
        fail(NOTHING, 0)
    confirm(f"Drop {', '.join(parts)}?")


def doctor(as_json: Json = False) -> None:
    """Look for what keeps a receiver from its work: settings, keys, disk, port, clock, public URL.

    It changes nothing, and each finding comes with its fix. Run it where the receiver runs, with
    the same environment. Exit code 1 says that something does not work.

    reelhook doctor
    reelhook doctor --json
    """
    import asyncio
    import json
    import os

    from receiver.doctor import examine
    from receiver.doctor.findings import Level, worst

    findings = asyncio.run(examine(os.environ))
    if as_json:
        typer.echo("\n".join(json.dumps(finding.as_json()) for finding in findings))
    else:
        _tell(findings)
    if worst(findings) is Level.ERROR:
        raise typer.Exit(FAILED)


def _tell(findings: list[Finding]) -> None:
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size().columns, 40) if sys.stdout.isatty() else 1_000
    for finding in findings:
        head = f"{finding.level.value:<7}  {finding.check:<14}  "
        indent = " " * (11 if width < 70 else len(head))
        lines = textwrap.wrap(
            head + finding.text, width, subsequent_indent=indent, break_on_hyphens=False
        )
        if finding.fix:
            lines += textwrap.wrap(
                f"→ {finding.fix}", width, initial_indent=indent, subsequent_indent=f"{indent}  "
            )
        typer.echo(inert("\n".join(lines)))
