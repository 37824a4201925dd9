"""The command line of the simulator. Touches Typer; all else is imported when the command runs."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from submitter.simulator.options import OPTIONS, Option

if TYPE_CHECKING:
    from submitter.simulator.config import Knobs

app = typer.Typer(add_completion=False)

NOT_STARTED = 3


def _with_knobs(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one option more for each knob, in place of its `**knobs`."""
    signature = inspect.signature(command, eval_str=True)
    own = [given for given in signature.parameters.values() if given.kind is not given.VAR_KEYWORD]
    parameters = [*own, *map(_parameter, OPTIONS)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _parameter(option: Option) -> inspect.Parameter:
    told = typer.Option(help=option.help, rich_help_panel=option.panel or None)
    kind: Any = Literal[option.kind] if isinstance(option.kind, tuple) else option.kind
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,  # so that what wasn't given can be told from what was
        annotation=Annotated[kind | None, told],
    )


@app.command()
@_with_knobs
def simulate(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 takes a free one.")
    ] = 8100,
    api_key: Annotated[
        str | None, typer.Option(help="The only key that passes (any that isn't empty).")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Base of the media URLs (the host that was submitted to).")
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Don't tell of each callback.")] = False,
    _as_json: Annotated[
        bool, typer.Option("--json", help="Stdout holds JSON documents, with this or without.")
    ] = False,
    **knobs: Any,
) -> None:
    """Play Runware and NanoGPT on this machine: takes video tasks, calls webhookURLs back for real.

    Tasks of the model simulator:fail@1 always fail, with the failure code; the last result of
    simulator:partial@1 does. POST /_control turns knobs while it runs, GET /_control shows them,
    and GET /_control/tasks lists every callback attempt. docs/simulator.md tells of each knob.

    reelhook simulate --port 8100
    reelhook simulate --duplicates 0.3 --drop 0.1 --order shuffled --seed 7
    """
    import anyio

    from submitter.simulator.config import SimulatorConfig
    from submitter.simulator.serve import serve

    config = SimulatorConfig(knobs=_knobs(knobs), api_key=api_key, public_url=public_url)
    log = _discard if quiet else _tell

    async def run() -> None:
        await serve(config, host=host, port=port, on_ready=_announce, log=log)

    try:
        anyio.run(run)
    except OSError as fault:
        _tell(f"Can't listen on {host} port {port}: {_why(fault)}.")
        raise typer.Exit(NOT_STARTED) from fault


def _why(fault: OSError) -> str:
    """The system's words; those of the event loop name host and port once more."""
    number = fault.errno or 0  # of a name that does not resolve it is below
    return os.strerror(number) if number > 0 else str(fault.strerror or fault)


def _knobs(given: dict[str, Any]) -> Knobs:
    from pydantic import ValidationError

    from submitter.simulator.config import Knobs

    try:
        return Knobs.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as fault:
        first = fault.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(f"{flag}: {first['msg']}") from fault


def _announce(url: str) -> None:
    typer.echo(json.dumps({"event": "ready", "url": url}, separators=(",", ":")))
    _tell(
        f"The simulator plays Runware (RUNWARE_BASE_URL={url}/v1) and NanoGPT"
        f" (NANOGPT_BASE_URL={url}/api). Ctrl-C ends it."
    )


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _discard(line: str) -> None:
    pass
