"""Floor 5, assembly: the `reelhook` command. typer only; commands import their flow when called."""

from __future__ import annotations

import json
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated

import typer
from typer.main import get_command

from receiver.cli import completing
from receiver.cli.access import audit, tokens
from receiver.cli.backups import backup, restore
from receiver.cli.help import DELIVER, OPERATE, RUN, SUBMIT, dressed
from receiver.cli.inbound import callbacks
from receiver.cli.ledger import costs, tasks
from receiver.cli.listening import listen
from receiver.cli.login import login
from receiver.cli.moving import migrate_store
from receiver.cli.options import AlwaysJson, Json
from receiver.cli.output import (
    FAILED,
    OK,
    UNREACHABLE,
    USAGE,
    done,
    fail,
    pairs_of,
    say,
    settings_of,
    spec_of,
    with_client,
)
from receiver.cli.repair import deliveries, endpoints, events, jobs
from receiver.cli.upkeep import doctor, prune

if TYPE_CHECKING:
    from receiver.client import Client

app = typer.Typer(
    name="reelhook",
    help="""Never poll again: signed webhook URLs out, durable results in, every callback delivered.

    reelhook serve
    reelhook submit pixverse:1@6 prompt="a paper boat" width=1280 height=720 duration=5 --watch
    reelhook endpoints add https://example.com/hooks -e 'result.*'
    reelhook deliveries list --state dead
    """,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
keys = typer.Typer(no_args_is_help=True, help="Signing keys and the admin token.")
for _name, _group, _section in (
    ("keys", keys, RUN),
    ("tasks", tasks, SUBMIT),
    ("callbacks", callbacks, SUBMIT),
    ("endpoints", endpoints, DELIVER),
    ("deliveries", deliveries, DELIVER),
    ("events", events, DELIVER),
    ("jobs", jobs, DELIVER),
    ("tokens", tokens, OPERATE),
):
    app.add_typer(_group, name=_name, rich_help_panel=_section)
app.command(rich_help_panel=SUBMIT)(costs)
app.command(rich_help_panel=OPERATE)(backup)
app.command(rich_help_panel=OPERATE)(restore)
app.command("migrate-store", rich_help_panel=OPERATE)(migrate_store)
app.command(rich_help_panel=OPERATE)(prune)
app.command(rich_help_panel=OPERATE)(audit)
app.command(rich_help_panel=RUN)(doctor)
app.command(rich_help_panel=RUN)(login)
app.command(rich_help_panel=DELIVER)(listen)


def main() -> None:
    """The console script: our commands and those of installed packages."""
    get_command(whole())(prog_name="reelhook")


def whole() -> typer.Typer:
    """`reelhook` with the commands of installed packages, all of one look."""
    every = typer.Typer(
        name=app.info.name,
        help=app.info.help,
        no_args_is_help=True,
        context_settings=app.info.context_settings,
    )
    every.registered_callback = app.registered_callback
    every.registered_groups = [*app.registered_groups]
    every.registered_commands = [*app.registered_commands]
    for found in entry_points(group="reelhook.commands"):
        try:
            every.registered_commands += found.load().registered_commands
        except ImportError as error:  # another package's defect must not keep the door shut
            say(f"The commands of {found.value} are missing: {error}.")
    return dressed(every)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Never poll again."""
    if version:
        from receiver import __version__

        typer.echo(f"reelhook {__version__}")
        raise typer.Exit(OK)


@app.command(rich_help_panel=RUN)
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on [HOST].")] = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port, 0 for a free one [PORT].")
    ] = None,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Deliver nothing: `reelhook worker` does.")
    ] = False,
    _as_json: AlwaysJson = False,
) -> None:
    """Run the receiver: door, ledger and delivery in one process.

    reelhook serve
    HOST=0.0.0.0 PORT=8000 reelhook serve
    DATABASE_URL=postgresql://reelhook@db/reelhook reelhook serve --no-worker
    """
    from receiver import serve as serving
    from receiver.condition import Origin, Role
    from receiver.errors import CannotStart
    from receiver.server import run

    asked = {"host": host or None, "port": port}
    given = {name: value for name, value in asked.items() if value is not None}
    settings = settings_of().changed(Origin.OPTION, given)
    try:
        settings = settings.completed()
        role = Role.WEB if no_worker else Role.ALL
        run(serving.run(settings, serving.announce(settings), role))
    except CannotStart as error:
        fail(str(error), UNREACHABLE)


@app.command(rich_help_panel=RUN)
def worker(_as_json: AlwaysJson = False) -> None:
    """Deliver what is due, and do what else falls due; any number of them, on PostgreSQL.

    On 127.0.0.1, at REELHOOK_ADMIN_PORT or a free port, it tells how it fares.

    DATABASE_URL=postgresql://reelhook@db/reelhook reelhook worker
    """
    from receiver import serve as serving
    from receiver.condition import Role
    from receiver.errors import CannotStart
    from receiver.server import run

    try:
        settings = settings_of().completed()
        run(serving.run(settings, serving.announce_worker(settings), Role.WORKER))
    except CannotStart as error:
        fail(str(error), UNREACHABLE)


@app.command(rich_help_panel=RUN)
def migrate(as_json: Json = False) -> None:
    """Bring the database to this release's schema. With SQLite, the receiver must not run.

    A file of an earlier release, which can't shrink, is rewritten once: that takes its time, and
    twice its size of free disk. On PostgreSQL one process at a time migrates, others may run.

    reelhook migrate
    """
    import asyncio

    from receiver.errors import CannotStart, StoreUnavailable
    from receiver.stores import database_of, open_store

    settings = settings_of()

    async def run() -> None:
        async with await open_store(settings, lambda event, **_: None, rebuild=True):
            name = database_of(settings)
            done(f"{name} is up to date.", as_json, database=name, up_to_date=True)

    try:
        asyncio.run(run())
    except CannotStart as error:
        fail(str(error), UNREACHABLE)
    except StoreUnavailable as error:
        fail(str(error), FAILED)


@keys.command("new")
def keys_new(as_json: Json = False) -> None:
    """Print a new signing key, admin token and encryption key, as lines for an environment file.

    reelhook keys new >> .env
    """
    from receiver.settings import new_key

    names = ("REELHOOK_SIGNING_KEYS", "REELHOOK_ADMIN_TOKEN", "REELHOOK_ENCRYPTION_KEYS")
    made = {name: new_key() for name in names}
    if as_json:
        typer.echo(json.dumps(made))
        return
    typer.echo("\n".join(f"{name}={key}" for name, key in made.items()))
    say("To rotate: put a new key in front of the old ones, separated by a comma.")


@app.command(rich_help_panel=SUBMIT)
def url(
    task_id: Annotated[str, typer.Argument(help="The taskUUID you will send.")],
    platform: Annotated[
        str, typer.Option(help="Who will call.", autocompletion=completing.platforms)
    ] = "runware",
    results: Annotated[
        int, typer.Option("--results", "-n", min=1, max=100, help="How many it will owe.")
    ] = 1,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="key=value, visible.")] = None,
    as_json: Json = False,
) -> None:
    """Register a task and print its signed webhookURL, to paste into any request.

    reelhook url 24cd5dff-cb81-4db5-8506-b72a9425f9d1 --platform runware --results 4
    """
    from receiver.tasks import TaskSpec

    spec = spec_of(TaskSpec, platform=platform, expected=results, tags=pairs_of(tag or []))

    async def use(client: Client) -> None:
        task = await client.register_task(task_id, spec)
        typer.echo(task.model_dump_json() if as_json else task.webhook_url)

    with_client(use)


@app.command(rich_help_panel=DELIVER)
def verify(
    event_id: Annotated[str, typer.Option("--id", help="The webhook-id header.")],
    timestamp: Annotated[str, typer.Option(help="The webhook-timestamp header.")],
    signature: Annotated[str, typer.Option(help="The webhook-signature header.")],
    body: Annotated[typer.FileBinaryRead, typer.Argument(help="The body as received; - is stdin.")],
    secret: Annotated[
        str,
        typer.Option(
            envvar="REELHOOK_SECRET", help="The whsec_ secret; others can see what is given here."
        ),
    ] = "",
    public_key: Annotated[
        str, typer.Option(help="The endpoint's whpk_ key, for v1a signatures.")
    ] = "",
    at_any_time: Annotated[bool, typer.Option(help="Do not check the age.")] = False,
    as_json: Json = False,
) -> None:
    """Check a delivery's signature, as a consumer must; by the secret, the public key, or either.

    reelhook verify --id evt_… --timestamp 1732131604 --signature 'v1,…' body.json
    """
    import time

    from receiver.delivery.signing import SignatureRefused
    from receiver.delivery.signing import verify as check

    secrets, keys = ([text] if text else [] for text in (secret, public_key))
    if not (secrets or keys):
        fail("Set REELHOOK_SECRET to the whsec_ secret, or give --public-key.", USAGE)
    headers = {
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature,
    }
    now = int(timestamp) if at_any_time and timestamp.isdigit() else int(time.time())
    try:
        check(secrets, headers, body.read(), now=now, public_keys=keys)
    except SignatureRefused as error:
        fail(f"Refused ({error.reason}): {error}", FAILED)
    done("The signature is good.", as_json, id=event_id, verified=True)
