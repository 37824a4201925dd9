"""Floor 5, assembly: `reelhook tasks`, `costs`, `events`: what is owed, paid and told."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from receiver.cli import completing
from receiver.cli.options import (
    EventId,
    HowMany,
    Json,
    Limit,
    OfModel,
    OfPlatform,
    OfProject,
    OfTag,
    OfTask,
    Since,
    TaskId,
    TaskStatus,
    Until,
    Yes,
)
from receiver.cli.output import (
    TIMED_OUT,
    confirm,
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
    from receiver.client import Client, Costs, Task

tasks = typer.Typer(no_args_is_help=True, help="The ledger of submitted tasks.")
events = typer.Typer(no_args_is_help=True, help="What was told downstream.")


@tasks.command("list")
def tasks_list(
    status: TaskStatus = None,
    model: OfModel = None,
    platform: OfPlatform = None,
    tag: OfTag = None,
    overdue: Annotated[bool, typer.Option("--overdue", help="Only overdue ones.")] = False,
    unregistered: Annotated[
        bool, typer.Option("--unregistered", help="Only those known from a callback alone.")
    ] = False,
    q: Annotated[str | None, typer.Option("-q", help="Text in model, tags, metadata.")] = None,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: HowMany = 50,
    as_json: Json = False,
) -> None:
    """List tasks, the newest first.

    reelhook tasks list --status pending
    """
    columns = ("id", "model", "status", ("results", _results), "cost", "submit_state")

    async def use(client: Client) -> None:
        filters = {
            "status": status,
            "model": model,
            "tag": tag,
            "overdue": overdue or None,
            "registered": False if unregistered else None,
            "q": q,
            "platform": platform,
            "project": project,
            "since": moment_of(since),
            "until": moment_of(until),
        }
        empty = "No tasks. Try `reelhook submit`."
        await listing(client.tasks, filters, limit, as_json, (*columns, "created_at"), empty)

    with_client(use)


def _results(task: Task) -> str:
    """How many are in, of how many that are owed."""
    return f"{task.received}/{'?' if task.expected is None else task.expected}"


@tasks.command("show")
def tasks_show(task_id: TaskId, as_json: Json = False) -> None:
    """Show a task with its results.

    reelhook tasks show 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """

    async def use(client: Client) -> None:
        task = await client.task(task_id)
        results = await client.results(task_id)
        if task is not None:
            show(task, as_json)
        columns = ("index", "kind", "late", "seed", "cost", "source", "received_at", "id")
        if as_json or results:
            table(results, as_json, columns, "")

    with_client(use)


@tasks.command("watch")
def tasks_watch(
    task_id: TaskId,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait; 0 waits for ever.")] = 0,
    as_json: Json = False,
) -> None:
    """Follow a task until it is complete.

    reelhook tasks watch 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """
    import asyncio

    async def use(client: Client) -> None:
        try:
            async with asyncio.timeout(timeout or None):
                await _follow(client, task_id, as_json)
        except TimeoutError:
            fail(f"Task {task_id} is not complete after {timeout:g} s.", TIMED_OUT)

    with_client(use)


@tasks.command("reconcile")
def tasks_reconcile(task_id: TaskId, as_json: Json = False) -> None:
    """Make a task due for a poll now, also a complete one; `reelhook reconcile` asks for it.

    reelhook tasks reconcile 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """

    async def use(client: Client) -> None:
        task = await client.reconcile_task(task_id)
        if as_json:
            show(task, as_json)
        say(f"{task.id} is due: `reelhook reconcile` asks the platform after it. Is it running?")

    with_client(use)


@tasks.command("revoke")
def tasks_revoke(task_id: TaskId, as_json: Json = False) -> None:
    """Refuse every webhookURL of a task that was issued so far.

    What the platform still posts to them is answered with 410; a poll can fetch it.

    reelhook tasks revoke 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """

    async def use(client: Client) -> None:
        task = await client.revoke_task(task_id)
        if as_json:
            show(task, as_json)
        say(f"The URLs of {task.id} are refused from now on. `reelhook url` prints a fresh one.")

    with_client(use)


@tasks.command("remove")
def tasks_remove(task_id: TaskId, yes: Yes = False, as_json: Json = False) -> None:
    """Forget a task with its results; what was told of it downstream stays.

    reelhook tasks remove 24cd5dff-cb81-4db5-8506-b72a9425f9d1
    """
    if not yes and sys.stdin.isatty():
        confirm(f"Forget {task_id} and its results?")

    async def use(client: Client) -> None:
        await client.delete_task(task_id)
        done(f"{task_id} is gone.", as_json, id=task_id, removed=True)

    with_client(use)


async def _follow(client: Client, task_id: str, as_json: bool) -> None:
    revision: int | None = None
    complete = False
    while not complete:
        task = await client.task(task_id, wait=25 if revision else 0, revision=revision)
        if task is None:
            continue
        revision, complete = task.revision, task.complete
        if as_json:
            typer.echo(task.model_dump_json(exclude_none=True))
        else:
            typer.echo(f"{task.status.value:<17} {task.received} of {task.expected or '?'}")


def costs(
    by: Annotated[
        str, typer.Option(help="task, model, day, tag:NAME, project or platform.")
    ] = "model",
    status: TaskStatus = None,
    platform: OfPlatform = None,
    model: OfModel = None,
    project: OfProject = None,
    tag: OfTag = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    as_json: Json = False,
) -> None:
    """Sum up what tasks cost, as the platforms reported it.

    The last line is the total, also of what is not listed. What came without a cost is counted
    beside the sum, so that you see when it lacks something.

    reelhook costs
    reelhook costs --by tag:projectId --since 2026-11-01 --until 2026-12-01
    reelhook costs --by day --model pixverse:1@6 --json
    """
    filters = {
        "status": status,
        "platform": platform,
        "model": model,
        "project": project,
        "tag": tag,
        "since": moment_of(since),
        "until": moment_of(until),
    }

    async def use(client: Client) -> None:
        page = await client.costs(by, **filters, limit=limit)
        _sums(page, as_json)

    with_client(use)


def _sums(page: Costs, as_json: bool) -> None:
    from receiver.client import Cost

    columns = ("value", "cost", "results", "failed", "without_cost", "tasks")
    rows = page.data
    if page.total is not None and rows and not as_json:
        rows = [*rows, Cost(value="total", **page.total.model_dump())]
    table(rows, as_json, columns, "No results there that could have cost anything.")
    if page.total is not None and as_json:
        typer.echo(f'{{"total":{page.total.model_dump_json()}}}')
    if page.next_cursor is not None:
        say("There are more groups: --limit takes up to 200, the filters make them fewer.")


@events.command("list")
def events_list(
    event_type: Annotated[
        str | None,
        typer.Option(
            "--type", help="Such as task.completed.", autocompletion=completing.event_types
        ),
    ] = None,
    task: OfTask = None,
    project: OfProject = None,
    since: Since = None,
    until: Until = None,
    limit: HowMany = 50,
    as_json: Json = False,
) -> None:
    """List events, the newest first.

    reelhook events list --type task.completed
    reelhook events list --since 2h --limit 1000 --json
    """

    async def use(client: Client) -> None:
        filters = {
            "event_type": event_type,
            "task": task,
            "project": project,
            "since": moment_of(since),
            "until": moment_of(until),
        }
        columns = ("id", "type", "created_at", "task_id")
        await listing(client.events, filters, limit, as_json, columns, "No events yet.")

    with_client(use)


@events.command("show")
def events_show(event_id: EventId, as_json: Json = False) -> None:
    """Show an event with the payload that was sent.

    reelhook events show evt_…
    """

    async def use(client: Client) -> None:
        show(await client.event(event_id), as_json)

    with_client(use)
