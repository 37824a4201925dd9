"""What the pages say against what the code does. Some blocks of them are made from the code:

.venv/bin/python -m tests.test_docs     writes them anew
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, Final

import pytest
from typer.main import get_command

from receiver import recording
from receiver.access import Action, Scope
from receiver.callbacks import Outcome
from receiver.cli import whole
from receiver.cli.help import SECTIONS, Command, Group, meaning_of, name_of, told
from receiver.clock import DAY, MINUTE, SECOND
from receiver.condition import Grade, Origin
from receiver.costs import By
from receiver.deliveries import MOVES, Failure
from receiver.delivery import health, policy
from receiver.delivery.guard import UrlRefused
from receiver.delivery.health import MOVES as BREAKER_MOVES
from receiver.delivery.policy import SCHEDULE
from receiver.endpoints import Breaker
from receiver.errors import ReelhookError, Refusal, StoreUnavailable
from receiver.events import TYPES
from receiver.log import LINES
from receiver.metrics import COUNTER, OF_THE_PROCESS, OF_THE_STORE
from receiver.platforms import PLATFORMS
from receiver.platforms.items import Category
from receiver.repair import (
    JOB_MOVES,
)
from receiver.settings import Settings
from receiver.tasks import Status, SubmitState, status_of
from receiver.tokens import Source
from submitter.platforms.catalogue import SHIPPED
from submitter.rules.catalogue import UNKNOWN_MODEL
from submitter.simulator.config import Knobs
from submitter.simulator.options import OPTIONS
from tests.shown_files import FILES

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
PAGES: Final = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


def page(name: str) -> str:
    """The text of a page under docs/."""
    return (DOCS / name).read_text()


def said(text: str, word: str) -> bool:
    """Whether a page names the word as code: in backticks, or as a key or value of an example."""
    return re.search(rf"[`\"]{re.escape(word)}[`\"=]", text) is not None


# Commands


@cache
def root() -> Any:
    """The installed `reelhook`."""
    return get_command(whole())


@cache
def commands() -> dict[str, Any]:
    """Every command of the installed `reelhook`, by its words."""
    found: dict[str, Any] = {}
    for name, command in root().commands.items():
        nested = getattr(command, "commands", None) or {"": command}
        found |= {f"{name} {inner}".strip(): child for inner, child in nested.items()}
    return dict(sorted(found.items()))


def groups() -> dict[str, Any]:
    """`reelhook` and its groups of commands, by their words."""
    every = root().commands.items()
    return {"": root(), **{name: child for name, child in every if hasattr(child, "commands")}}


def _option(parameter: Any) -> str:
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{name_of(parameter)}`"
    meaning = meaning_of(parameter).replace("|", "\\|")
    if parameter.envvar:
        meaning = meaning.replace(parameter.envvar, f"`{parameter.envvar}`")
    return f"| {names} | {meaning} |"


def made_commands() -> str:
    """docs/cli.md: one section a command."""
    made: list[str] = []
    for name, command in commands().items():
        parts = told(command)
        made += [f"### reelhook {name}", "", parts.summary, ""]
        made += [f"{text}\n" for text in parts.text]
        made += ["```sh", *parts.examples, "```", ""]
        shown = [one for one in command.params if one.name != "help" and not one.hidden]
        if shown:
            made += ["| | |", "| --- | --- |", *map(_option, shown), ""]
    return "\n".join(made).rstrip()


# Settings

_DEFAULTS: Final = {"data_dir": "the user's data directory"}


def variables() -> dict[str, tuple[str, str]]:
    """Variable: (default, meaning) of every setting that has one."""
    found = {}
    for name, field in Settings.model_fields.items():
        if field.validation_alias is None:
            continue
        default = "–" if field.default in (None, "") else f"`{field.default}`"
        found[str(field.validation_alias)] = (
            _DEFAULTS.get(name, default),
            field.description or "",
        )
    return found


def made_settings() -> str:
    """docs/settings.md: one row a setting."""
    rows = [f"| `{name}` | {default} | {text} |" for name, (default, text) in variables().items()]
    return "\n".join(["| variable | default | meaning |", "| --- | --- | --- |", *rows])


# The simulator's knobs


def _values(schema: dict[str, Any]) -> str:
    """What a knob takes, out of its JSON schema."""
    kinds = [kind for kind in schema.get("anyOf", [schema]) if kind.get("type") != "null"]
    (kind,) = kinds
    if "enum" in kind:
        return " ".join(f"`{word}`" for word in kind["enum"])
    low = kind.get("minimum", kind.get("exclusiveMinimum"))
    high = kind.get("maximum", kind.get("exclusiveMaximum"))
    if low is None:
        return {"boolean": "`true` `false`", "string": "text"}[kind["type"]]
    above = "above " if "exclusiveMinimum" in kind else ""
    return f"{above}{low:g} …" + ("" if high is None or high > 1e9 else f" {high:g}")


def made_knobs() -> str:
    """docs/simulator.md: one table a group of knobs."""
    schemas, made, panel = Knobs.model_json_schema()["properties"], [], None
    head = ["| knob, flag | values | default | | why, and where from |"]
    for option in OPTIONS:
        if option.panel != panel:
            panel = option.panel
            made += ["", f"### {panel or 'The run'}", "", *head, "| --- | --- | --- | --- | --- |"]
        default = option.default or "off"
        cells = [f"`{option.name}` `{option.flag}`", _values(schemas[option.name]), default]
        made.append(f"| {' | '.join([*cells, option.does, option.source])} |")
    return "\n".join(made).strip()


# Metrics


def made_metrics() -> str:
    """docs/observability.md: one row a metric, of the process and of the store."""
    made = []
    for heading, every in (("Of the process", OF_THE_PROCESS), ("Of the store", OF_THE_STORE)):
        made += [
            "",
            f"### {heading}",
            "",
            "| metric | kind | labels | |",
            "| --- | --- | --- | --- |",
        ]
        for one in every:
            name = f"{one.name}_total" if one.kind == COUNTER else one.name
            labels = " ".join(f"`{label}`" for label in one.labels) or "–"
            made.append(f"| `{name}` | {one.kind} | {labels} | {one.meaning} |")
    return "\n".join(made).strip()


def made_lines() -> str:
    """docs/observability.md: one row an event of the log."""
    made = ["| event | level | fields | |", "| --- | --- | --- | --- |"]
    for line in LINES:
        fields = [*(f"`{name}`" for name in line.fields.split()), *filter(None, [line.more])]
        levels = " ".join(f"`{level}`" for level in line.levels.split())
        made.append(f"| `{line.event}` | {levels} | {' '.join(fields) or '–'} | {line.meaning} |")
    return "\n".join(made)


MADE: Final[Mapping[str, tuple[str, Callable[[], str]]]] = {
    **FILES,
    "commands": ("cli.md", made_commands),
    "settings": ("settings.md", made_settings),
    "knobs": ("simulator.md", made_knobs),
    "metrics": ("observability.md", made_metrics),
    "lines": ("observability.md", made_lines),
}


def _block(name: str) -> re.Pattern[str]:
    return re.compile(rf"(<!-- made: {name} -->\n).*?(<!-- end -->)", re.DOTALL)


def _with(text: str, name: str, made: str) -> str:
    return _block(name).sub(lambda found: f"{found[1]}{made}\n{found[2]}", text)


@pytest.mark.parametrize("name", MADE)
def test_made_blocks_are_up_to_date(name: str) -> None:
    file, make = MADE[name]
    text = page(file)
    assert _block(name).search(text)
    assert text == _with(text, name, make()), "run: .venv/bin/python -m tests.test_docs"


def test_every_command_and_option_is_documented() -> None:
    text = page("cli.md")
    for name, command in commands().items():
        _, found, section = text.partition(f"### reelhook {name}\n")
        assert found, name
        section = section.partition("\n### ")[0]
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert all(f"`{option}`" in section for option in parameter.opts), (name, section)


@pytest.mark.parametrize("name", commands())
def test_every_command_explains_itself_as_all_do(name: str) -> None:
    """A sentence, an example that shows the command itself, a meaning for all it takes, --json."""
    command = commands()[name]
    assert isinstance(command, Command)
    parts = told(command)
    assert re.fullmatch(r"[A-Z].*\.", parts.summary)
    words = rf"(?:[A-Z_]+=\S* )*reelhook {re.escape(name)}(?: |$)"
    assert parts.examples
    assert [example for example in parts.examples if not re.match(words, example)] == []
    for parameter in command.params:
        assert meaning_of(parameter), f"what is {parameter.name} for?"
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    assert not options & {"--force", "--no-confirm", "--dryrun"}, "--yes and --dry-run are theirs"


@pytest.mark.parametrize("name", groups())
def test_every_group_explains_itself_as_all_do(name: str) -> None:
    group = groups()[name]
    assert isinstance(group, Group)
    assert re.fullmatch(r"[A-Z].*\.", told(group).summary)
    assert told(group).examples
    if not name:
        assert {getattr(one, "rich_help_panel", None) for one in group.commands.values()} == {
            *SECTIONS
        }


def test_every_variable_that_the_code_names_is_documented() -> None:
    text, example = page("settings.md"), (ROOT / ".env.example").read_text()
    named = set(variables())
    for path in [*(ROOT / "receiver").rglob("*.py"), *(ROOT / "submitter").rglob("*.py")]:
        named |= set(re.findall(r"\b(?:REELHOOK|RUNWARE|NANOGPT)_[A-Z_]+[A-Z]\b", path.read_text()))
    assert [name for name in sorted(named) if f"`{name}`" not in text] == []
    assert [name for name in variables() if f"# {name}=" not in example] == []


def test_the_example_environment_names_only_what_exists() -> None:
    named = re.findall(r"^# ?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert named
    assert [name for name in named if f"`{name}`" not in page("settings.md")] == []


# HTTP


def test_every_problem_code_is_documented() -> None:
    codes = {kind.code for kind in _family(Refusal)} - {Refusal.code}
    codes |= {kind.code for kind in _family(StoreUnavailable)}
    codes |= {UrlRefused.code, "method_not_allowed"}
    for name in ("ingest.py", "app.py", "admin/api.py", "admin/routes/answers.py"):
        text = (ROOT / "receiver" / name).read_text()
        codes |= set(re.findall(r'(?:_refusal|problem)\(\s*\d+,\s*"(\w+)"', text))
    assert [code for code in sorted(codes) if not said(page("http-api.md"), code)] == []


def _family(kind: type[ReelhookError]) -> Iterator[type[ReelhookError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http-api.md", [*Outcome]),
        ("http-api.md", [*Failure]),
        ("http-api.md", [*Breaker]),
        ("http-api.md", [*Grade]),
        ("http-api.md", [*Origin]),
        ("http-api.md", [*SubmitState]),
        ("http-api.md", [*Source]),
        ("http-api.md", [*Scope]),
        ("http-api.md", [*Action]),
        ("http-api.md", [*set(By) - {By.TAG}]),
        ("events.md", [*Category]),
        ("events.md", [*TYPES]),
        ("states.md", [*Status]),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value[0]).__name__,
)
def test_every_word_of_the_code_is_explained(name: str, words: list[str]) -> None:
    assert [word for word in words if not said(page(name), word)] == []


def test_every_reason_of_a_quarantine_says_what_to_do() -> None:
    found = {recording.NAMES_NO_TASK, recording.FOREIGN, recording.UNKNOWN, "bad_json", "empty"}
    for path in (ROOT / "receiver" / "platforms").glob("*.py"):
        found |= set(re.findall(r'Unreadable\(\s*"(\w+)"', path.read_text()))
    assert len(found) > 9
    assert [word for word in sorted(found) if not said(page("troubleshooting.md"), word)] == []


def test_the_page_of_events_names_no_type_that_is_never_sent() -> None:
    named = re.findall(r"^\| `([a-z]+\.[a-z]+)` \|", page("events.md"), re.MULTILINE)
    assert set(named) == set(TYPES)


def test_the_documented_schedule_is_the_one_that_is_used() -> None:
    found = re.search(r"<!-- schedule -->\n(.+)\n", page("events.md"))
    assert found is not None
    seconds = {"s": 1, "min": 60, "h": 3600}
    said_delays = re.findall(r"(\d+) (s|min|h)", found[1])
    assert tuple(int(count) * seconds[unit] for count, unit in said_delays) == SCHEDULE


# States


def drawn(name: str) -> set[tuple[str, str, str]]:
    """(from, to, label) of each arrow of one of the drawings in docs/states.md."""
    _, found, rest = page("states.md").partition(f"<!-- drawing: {name} -->")
    assert found, name
    arrows = re.findall(r"^ +(\w+) --> (\w+): (.+)$", rest.partition("\n```\n")[0], re.MULTILINE)
    return {(start, end, label) for start, end, label in arrows}


def test_the_drawing_of_deliveries_is_the_table() -> None:
    moves = {(start.value, end.value, move.value) for (start, move), end in MOVES.items()}
    assert drawn("deliveries") == moves


def test_the_drawing_of_the_breaker_is_the_table() -> None:
    moves = {(start.value, end.value, move.value) for (start, move), end in BREAKER_MOVES.items()}
    assert drawn("breaker") == moves


def test_the_page_of_states_has_the_bounds_that_are_used() -> None:
    text = page("states.md")
    assert f"{health.STRIKES} attempts in a row" in text
    assert f"failing for {health.BRIEFLY // SECOND} s" in text
    assert f"The pause is {health.FIRST_PAUSE // SECOND} s" in text
    assert f"up to {health.LONGEST_PAUSE // MINUTE} minutes" in text
    assert f"for {health.LONG_FAILURE // DAY} days without" in text
    assert said(text, health.FAILING)
    assert said(text, policy.GONE)


def test_the_drawing_of_jobs_is_the_table() -> None:
    moves = {(start.value, end.value, move.value) for (start, move), end in JOB_MOVES.items()}
    assert drawn("jobs") == moves


def test_the_drawing_of_tasks_is_what_can_happen() -> None:
    happens = set()
    for expected, succeeded, failed, closed in product((1, 2, 3), range(4), range(4), (0, 1)):
        if closed and not succeeded + failed:
            continue  # what closes a task brings a result
        before = status_of(expected, succeeded, failed, bool(closed))
        bodies = list(product(range(3), range(3), (closed, 1)))
        after = {status_of(expected, succeeded + s, failed + f, bool(c)) for s, f, c in bodies[1:]}
        if closed and failed:  # a late result takes the place of one that was missed
            after.add(status_of(expected, succeeded + 1, failed - 1, True))
        happens |= {(before.value, one.value) for one in after if one is not before}
    assert {(start, end) for start, end, _ in drawn("tasks")} == happens


# Links and commands


def test_adding_a_platform_is_what_the_shipped_ones_did() -> None:
    """Each place that the table names is there for every platform, and each table has them all."""
    rows = page("platforms.md").partition("## Adding a platform")[2]
    places = {word for word in re.findall(r"`([^` ]+)`", rows) if "/" in word}
    assert {"receiver/platforms/", "submitter/platforms/", "tests/corpus/<platform>/"} <= places
    assert set(PLATFORMS) == set(SHIPPED) == set(UNKNOWN_MODEL)
    for platform in PLATFORMS:
        for place in places:
            assert (ROOT / place.replace("<platform>", platform)).exists(), place
        for folder in ("receiver/platforms", "submitter/platforms", "submitter/rules"):
            assert (ROOT / folder / f"{platform}.py").is_file()
        assert f"## {SHIPPED[platform].title}" in page("platforms.md")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_resolve(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in _anchors(linked.read_text()), f"{target} has no such heading"


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in headings}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_on_the_pages_exist(path: Path) -> None:
    known = commands()
    for line in _typed(path.read_text()):
        words = _words(line)
        if words and words[0].startswith("scripts/"):
            assert (ROOT / words[0]).exists(), line
        if not words or words[0] != "reelhook" or words[1:2] == ["--version"]:
            continue
        name = next((" ".join(words[1:n]) for n in (3, 2) if " ".join(words[1:n]) in known), None)
        assert name is not None, f"there is no {line!r}"
        options = {
            option
            for parameter in known[name].params
            for option in [*parameter.opts, *parameter.secondary_opts]
        }
        given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert given <= options | {"--help", "-h"}, line


def _typed(text: str) -> Iterator[str]:
    for block in re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.DOTALL):
        joined = re.sub(r"\\\n\s*", " ", block)
        yield from (line.strip().removeprefix("$ ") for line in joined.splitlines())


def _words(line: str) -> list[str]:
    """The words of the command that a line runs: no variables before it, no pipe behind it."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    while words and re.match(r"[A-Z_]+=", words[0]):
        words.pop(0)
    ends = [place for place, word in enumerate(words) if word in ("|", "&", "&&", ";", ">", ">>")]
    return words[: ends[0]] if ends else words


def write() -> None:
    """Write the made blocks anew."""
    for name, (file, make) in MADE.items():
        path = DOCS / file
        path.write_text(_with(path.read_text(), name, make()))


if __name__ == "__main__":
    write()
