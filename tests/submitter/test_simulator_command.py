"""The simulator's command: its flags, which are its knobs, and its life as a process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route
from typer.testing import CliRunner

from submitter.simulator.app import build
from submitter.simulator.command import app as command
from submitter.simulator.config import Knobs, SimulatorConfig
from submitter.simulator.options import OPTIONS

GIVE_UP_S = 20


@pytest.mark.process
@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_and_ends_on_a_signal(ending: signal.Signals) -> None:
    arguments = [sys.executable, "-m", "submitter.simulator", "--port", "0", "--seed", "7"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        shown = httpx.get(f"{ready['url']}/_control", trust_env=False).json()
        process.send_signal(ending)
        rest, said = process.communicate(timeout=GIVE_UP_S)
    assert (ready["event"], shown["knobs"]["seed"]) == ("ready", 7)
    assert (process.returncode, rest) == (0, "")
    assert ready["url"] in said
    assert "Traceback" not in said


def test_a_wrong_flag_is_a_usage_error() -> None:
    result = CliRunner().invoke(command, ["--drop", "7"])
    assert result.exit_code == 2
    assert "--drop" in result.stderr


def test_every_knob_is_a_flag_and_its_default_is_told() -> None:
    shown = CliRunner().invoke(command, ["--help"], env={"COLUMNS": "250"}).stdout
    rows = [row for row in shown.splitlines() if "reelhook simulate" not in row]  # no example
    for name, knob in Knobs.model_fields.items():
        (line,) = (row for row in rows if f" --{name.replace('_', '-')} " in row)
        default = str(knob.default).removesuffix(".0")
        assert default in ("None", "False") or f"({default})" in line


def test_the_options_are_the_knobs() -> None:
    """The table of the help against the class that checks; the names in the same order."""
    schemas = Knobs.model_json_schema()["properties"]
    assert [option.name for option in OPTIONS] == list(Knobs.model_fields)
    types = {bool: "boolean", int: "integer", float: "number", str: "string"}
    for option in OPTIONS:
        (schema,) = (
            kind
            for kind in schemas[option.name].get("anyOf", [schemas[option.name]])
            if kind.get("type") != "null"
        )
        if isinstance(option.kind, tuple):
            assert schema["enum"] == list(option.kind)
        else:
            assert schema["type"] == types[option.kind]
        if option.kind is int and "enum" in schema:
            assert option.does.endswith(": " + " ".join(map(str, schema["enum"])))


def test_every_knob_turns_by_flag() -> None:
    flags = [option.flag for option in OPTIONS if option.kind is bool]
    flags += [
        f"{option.flag}={option.kind[-1]}" for option in OPTIONS if isinstance(option.kind, tuple)
    ]
    flags += [f"{option.flag}=1" for option in OPTIONS if option.kind in (float, str)]
    flags += [f"{option.flag}=3" for option in OPTIONS if option.kind is int]
    flags = [flag.replace("status=3", "status=503").replace("gone=3", "gone=404") for flag in flags]
    given: list[Knobs] = []

    async def take(config: SimulatorConfig, **_: object) -> None:
        given.append(config.knobs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("submitter.simulator.serve.serve", take)
        result = CliRunner().invoke(command, flags)
    assert result.exit_code == 0, result.output
    assert given[0].model_fields_set == set(Knobs.model_fields)


def test_every_route_is_on_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text()
    routes = [route for route in build(SimulatorConfig()).routes if isinstance(route, Route)]
    assert len(routes) > 12
    for route in routes:
        methods = sorted((route.methods or set()) - {"HEAD"})
        path = re.sub(r"\{media:uuid\}", "<id>", route.path)
        assert any(f"`{method} {path}" in page for method in methods) or path == "/", path


def test_help_imports_no_server() -> None:
    probe = (
        "import sys, submitter.simulator.command as c;"
        "print(sorted({'starlette','httpx','pydantic','uvicorn'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
