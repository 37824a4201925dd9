"""The command line of the simulator. Touches Typer; all else is imported when the command runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from submitter.simulator.config import Knobs

app = typer.Typer(add_completion=False)

FAULTS, TIMING, ANSWERS, BODIES = "Faults", "Timing", "Submit answers", "Bodies"
POLLS = "Poll answers"
NOT_STARTED = 3


def _knob(help_text: str, panel: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(help=help_text, rich_help_panel=panel)
    return option


@app.command()
def simulate(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 8100,
    api_key: Annotated[
        str | None, typer.Option(help="The only key that passes (any that isn't empty).")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="Base of the media URLs (the host that was submitted to).")
    ] = None,
    quiet: Annotated[bool, typer.Option(help="Don't tell of each callback.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Same seed, same ids, order and faults (0).")
    ] = None,
    envelope: Annotated[
        Literal["wrapped", "flat", "mixed"] | None,
        _knob("Shape of a success callback (wrapped).", BODIES),
    ] = None,
    error_envelope: Annotated[
        Literal["errors", "error", "flat", "item"] | None,
        _knob("Shape of an error callback (errors).", BODIES),
    ] = None,
    include_nsfw: Annotated[bool | None, _knob("Add NSFWContent.", BODIES)] = None,
    big_seeds: Annotated[bool | None, _knob("Seeds above 2^31-1.", BODIES)] = None,
    extra_fields: Annotated[bool | None, _knob("Add fields nobody documented.", BODIES)] = None,
    delay_s: Annotated[
        float | None, _knob("Mean seconds until a result is ready (0.5).", TIMING)
    ] = None,
    spread_s: Annotated[
        float | None, _knob("Seconds by which that varies, up and down (0.25).", TIMING)
    ] = None,
    order: Annotated[
        Literal["shuffled", "in_order"] | None,
        _knob("Which result of a task is ready first (shuffled).", TIMING),
    ] = None,
    late_s: Annotated[
        float | None, _knob("Seconds a callback lags behind its result (0).", TIMING)
    ] = None,
    callback_before_ack: Annotated[
        bool | None, _knob("Call back first, then acknowledge the submit.", TIMING)
    ] = None,
    failures: Annotated[float | None, _knob("Probability that a result fails (0).", FAULTS)] = None,
    failure_code: Annotated[
        str | None, _knob("Error code of failed results (timeoutProvider).", FAULTS)
    ] = None,
    duplicates: Annotated[
        float | None, _knob("Probability that a callback is sent again after a 2xx (0).", FAULTS)
    ] = None,
    duplicate_count: Annotated[int | None, _knob("How many times again (1).", FAULTS)] = None,
    duplicate_kind: Annotated[
        Literal["exact", "reordered", "conflict"] | None,
        _knob("Same bytes, other key order, or other cost (exact).", FAULTS),
    ] = None,
    drop: Annotated[
        float | None, _knob("Probability that a callback is never sent (0).", FAULTS)
    ] = None,
    max_attempts: Annotated[
        int | None, _knob("Tries of a callback before it is lost; an assumption (8).", FAULTS)
    ] = None,
    ack_timeout_s: Annotated[
        float | None, _knob("Seconds the receiver has to answer 2xx (5).", FAULTS)
    ] = None,
    media_ttl_s: Annotated[
        float | None, _knob("Seconds until media answer 410 (the task's ttl).", FAULTS)
    ] = None,
    submit_status: Annotated[
        int | None, _knob("Refuse submits: 400 401 402 403 429 500 503 504.", ANSWERS)
    ] = None,
    submit_code: Annotated[
        str | None, _knob("Error code of refused submits (by status).", ANSWERS)
    ] = None,
    submit_refusals: Annotated[
        int | None, _knob("How many submits are refused (all).", ANSWERS)
    ] = None,
    submit_hang_s: Annotated[
        float | None, _knob("Seconds to wait with the answer of an accepted submit (0).", ANSWERS)
    ] = None,
    poll_faults: Annotated[
        int | None, _knob("How many polls are refused or hang (all).", POLLS)
    ] = None,
    poll_status: Annotated[
        int | None, _knob("Refuse polls: 400 401 403 429 500 502 503 504.", POLLS)
    ] = None,
    poll_retry_after: Annotated[
        str | None, _knob("Retry-After of refused polls: seconds, or a date.", POLLS)
    ] = None,
    poll_hang_s: Annotated[
        float | None, _knob("Seconds to wait with the answer of a poll (0).", POLLS)
    ] = None,
    archive_after_s: Annotated[
        float | None, _knob("Seconds until only the archive knows a finished task.", POLLS)
    ] = None,
) -> None:
    """Play Runware on this machine: takes video tasks and calls their webhookURLs back for real.

    Tasks of the model simulator:fail@1 always fail, with the failure code; the last result of
    simulator:partial@1 does. POST /_control turns knobs while it runs, GET /_control shows them,
    and GET /_control/tasks lists every callback attempt.
    """
    import anyio

    from submitter.simulator.config import SimulatorConfig
    from submitter.simulator.serve import serve

    config = SimulatorConfig(knobs=_knobs(context), api_key=api_key, public_url=public_url)
    log = _discard if quiet else _tell

    async def run() -> None:
        await serve(config, host=host, port=port, on_ready=_announce, log=log)

    try:
        anyio.run(run)
    except OSError as fault:
        _tell(f"Can't listen on {host} port {port}: {fault.strerror}.")
        raise typer.Exit(NOT_STARTED) from fault


def _knobs(context: typer.Context) -> Knobs:
    from pydantic import ValidationError

    from submitter.simulator.config import Knobs

    given = {name: context.params[name] for name in Knobs.model_fields}
    try:
        return Knobs.model_validate({k: v for k, v in given.items() if v is not None})
    except ValidationError as fault:
        first = fault.errors()[0]
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise typer.BadParameter(f"{flag}: {first['msg']}") from fault


def _announce(url: str) -> None:
    typer.echo(json.dumps({"event": "ready", "url": url}, separators=(",", ":")))
    _tell(f"The simulator plays Runware on {url} (RUNWARE_BASE_URL={url}). Ctrl-C ends it.")


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _discard(line: str) -> None:
    pass
