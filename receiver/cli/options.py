"""Floor 5, assembly: arguments and options that several commands share, with their completion."""

from __future__ import annotations

from typing import Annotated

import typer

from receiver.cli import completing

TaskId = Annotated[
    str, typer.Argument(help="The task's id, its taskUUID.", autocompletion=completing.task_ids)
]
CallbackId = Annotated[
    str, typer.Argument(help="The callback's id.", autocompletion=completing.callback_ids)
]
EndpointId = Annotated[
    str, typer.Argument(help="The endpoint's id.", autocompletion=completing.endpoint_ids)
]
DeliveryId = Annotated[
    str, typer.Argument(help="The delivery's id.", autocompletion=completing.delivery_ids)
]
EventId = Annotated[
    str, typer.Argument(help="The event's id.", autocompletion=completing.event_ids)
]
JobId = Annotated[str, typer.Argument(help="The job's id.", autocompletion=completing.job_ids)]

OfTask = Annotated[
    str | None,
    typer.Option("--task", help="Of this task alone.", autocompletion=completing.task_ids),
]
OfEndpoint = Annotated[
    str | None,
    typer.Option(
        "--endpoint", help="Of this endpoint alone.", autocompletion=completing.endpoint_ids
    ),
]
OfType = Annotated[
    str | None,
    typer.Option(
        "--event-type",
        help="Of this type alone, such as task.completed.",
        autocompletion=completing.event_types,
    ),
]
OfCause = Annotated[
    str | None,
    typer.Option(
        "--last-error",
        help="Whose last attempt failed so, such as status or timeout.",
        autocompletion=completing.failures,
    ),
]
OfAnswer = Annotated[
    int | None,
    typer.Option("--last-status", help="Whose last attempt was answered so, such as 503."),
]
OfModel = Annotated[
    str | None, typer.Option("--model", help="Of this model alone, such as pixverse:1@6.")
]
OfProject = Annotated[str | None, typer.Option("--project", help="Of this project alone.")]
OfPlatform = Annotated[
    str | None,
    typer.Option("--platform", help="Of this platform alone.", autocompletion=completing.platforms),
]
OfTag = Annotated[str | None, typer.Option("--tag", help="key=value that it must have.")]
TaskStatus = Annotated[
    str | None,
    typer.Option(
        "--status", help="pending, partial, succeeded, …", autocompletion=completing.statuses
    ),
]
Since = Annotated[
    str | None, typer.Option("--since", help="2h, 30m, 7d ago; or 2026-11-20, or with a time; UTC.")
]
Until = Annotated[str | None, typer.Option("--until", help="Likewise; not included.")]

Json = Annotated[bool, typer.Option("--json", help="One JSON document a line on stdout.")]
AlwaysJson = Annotated[
    bool, typer.Option("--json", help="Stdout holds JSON documents, with this or without.")
]
Limit = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many at most.")]
# Of a list that is read page by page.
HowMany = Annotated[int, typer.Option("--limit", min=1, help="How many at most.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Count, change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask before.")]
