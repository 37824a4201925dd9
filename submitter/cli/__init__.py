"""Floor 5, assembly: the submitter's commands of `reelhook`; flows are imported when called."""

from __future__ import annotations

import typer

from submitter.cli.output import RUN, SUBMIT
from submitter.cli.running import demo, dev, reconcile
from submitter.cli.submitting import models, submit, validate
from submitter.cli.triggering import trigger
from submitter.simulator.command import simulate

app = typer.Typer(no_args_is_help=True)
for section, commands in (
    (RUN, (demo, dev, simulate, trigger)),
    (SUBMIT, (submit, validate, models, reconcile)),
):
    for command in commands:
        app.command(command.__name__, rich_help_panel=section)(command)
