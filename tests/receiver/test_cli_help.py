"""How commands explain themselves, over the real ones and over the tables that they print."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from rich.cells import cell_len
from typer.main import get_command
from typer.testing import CliRunner

from receiver.cli import whole
from receiver.cli.help import REST, WIDEST, dressed, told
from receiver.cli.output import listing, show
from receiver.cli.table import GAP, SHORTEST, Column, laid_out
from receiver.client import Listing
from tests.receiver.shell import reelhook

RUNNER = CliRunner()


def helped(*words: str, columns: int = 80, **environ: str | None) -> str:
    """What `reelhook … --help` prints on a terminal of so many columns."""
    env = {"COLUMNS": str(columns), **environ}
    found = RUNNER.invoke(whole(), [*words, "--help"], env=env, prog_name="reelhook")
    assert (found.exit_code, found.exception) == (0, None)
    return found.output


@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--port", "65536"),
        ("serve", "--port", "-1"),
        ("simulate", "--port", "65536"),
        ("dev", "--port", "-1"),
        ("dev", "--admin-port", "65536"),
        ("dev", "--ssh-remote-port", "65536"),
        ("tasks", "watch", "x", "--timeout", "-1"),
        ("submit", "m", "--watch", "--timeout", "-1"),
    ],
)
def test_a_number_that_can_not_be_is_a_usage_error(words: tuple[str, ...]) -> None:
    found = RUNNER.invoke(whole(), words, prog_name="reelhook")
    assert (found.exit_code, f"'{words[-2]}'" in found.output) == (2, True)


def test_the_examples_come_before_everything_but_the_sentence() -> None:
    text = helped("deliveries", "retry")
    places = [text.index(word) for word in ("Send a settled", "Examples", "Usage", "Options")]
    assert places == sorted(places)
    assert "\n  reelhook deliveries retry dlv_…\n" in text
    assert "\n  reelhook deliveries retry [OPTIONS] [DELIVERY_ID]\n" in text
    assert "-h, --help" in text


def test_the_root_sorts_its_commands_into_sections() -> None:
    text = helped()
    places = [text.index(f"\n{word}\n") for word in ("Run it", "Submit", "Deliver", "Operate")]
    assert places == sorted(places)
    assert f"\n{REST}\n" not in text
    assert text.index("\n  serve ") < text.index("\n  submit ") < text.index("\n  endpoints ")


def test_a_group_shows_the_first_examples_of_its_commands() -> None:
    assert "  reelhook jobs list\n  reelhook jobs show job_…\n" in helped("jobs")
    assert "`reelhook jobs COMMAND -h`" in helped("jobs")


@pytest.mark.parametrize("columns", [30, 44, 80, 300])
@pytest.mark.parametrize("words", [(), ("simulate",), ("submit",), ("endpoints", "add")])
def test_the_help_fits_the_terminal(words: tuple[str, ...], columns: int) -> None:
    """All but the examples, which are there to be copied, and single words."""
    text = helped(*words, columns=columns)
    for line in text.splitlines():
        whole_line = line.strip().startswith("reelhook ") or len(line.split()) <= 2
        assert whole_line or len(line) <= min(columns, WIDEST), line


def test_a_heading_is_bold_on_a_terminal_unless_it_may_have_no_colour() -> None:
    app = typer.Typer()
    app.command()(lambda: None)
    page = [RUNNER.invoke(dressed(app), ["--help"], color=True, env={"NO_COLOR": set}).output
            for set in ("", "1")]  # fmt: skip
    assert ["\x1b[1m" in text for text in page] == [True, False]


def test_paragraphs_are_examples_when_each_line_runs_the_command() -> None:
    app = typer.Typer()

    @app.command()
    def made_up() -> None:
        """Do it.

        reelhook is spoken of
        here.

        reelhook made-up
        PORT=1 HOST=x reelhook made-up
        """

    parts = told(get_command(app))
    assert parts.summary == "Do it."
    assert parts.examples == ("reelhook made-up", "PORT=1 HOST=x reelhook made-up")
    assert parts.text == ("reelhook is spoken of here.",)


def test_a_group_of_another_package_looks_like_ours() -> None:
    inner, app = typer.Typer(help="Inner things."), typer.Typer(help="Outer.")
    inner.command("one")(lambda: None)
    inner.command("two")(lambda: None)
    app.add_typer(inner, name="inner")
    found = RUNNER.invoke(dressed(app), ["inner", "--help"])
    assert "COMMAND -h` explains one of them." in found.output
    assert "╭" not in found.output


def test_the_help_imports_neither_rich_nor_what_the_commands_do(tmp_path: Path) -> None:
    """What makes it answer within 0.3 s, said without a clock."""
    code = (
        "import sys; sys.argv = ['reelhook', '--help']\n"
        "from receiver.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'rich', 'pydantic', 'httpx', 'starlette', 'aiohttp', 'asyncio', 'sqlite3'}\n"
        "print(sorted(heavy & {name.partition('.')[0] for name in sys.modules}))\n"
    )
    # Uncounted by coverage, which has imports of its own.
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COV")}
    command = [sys.executable, "-c", code]
    told_of = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True
    )
    assert told_of.stdout.splitlines()[-1] == "[]"


def test_a_wrong_command_is_answered_with_what_was_meant(tmp_path: Path) -> None:
    found = reelhook(tmp_path, "endpoint")
    assert (found.code, found.out) == (2, "")
    assert "Did you mean 'endpoints'?" in found.err
    assert "Usage: reelhook " in found.err
    assert "╭" not in found.err


# Tables


TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "M"]), max_size=40)
IDS = st.from_regex(r"[a-z]{2,4}_[0-9A-Z]{10,30}", fullmatch=True)


@st.composite
def columns(draw: st.DrawFn) -> list[Column]:
    rows = draw(st.integers(1, 4))
    found = [Column("id", tuple(draw(IDS) for _ in range(rows)))]
    for number in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["id", "text", "number"]))
        cells = {"id": IDS, "text": TEXTS, "number": st.integers(0, 10**9).map(str)}[kind]
        made = tuple(draw(cells) for _ in range(rows))
        found.append(Column(f"c{number}", made, kind == "text", kind == "number"))
    return found


@given(columns(), st.integers(1, 200))
def test_a_table_fits_and_breaks_no_id(found: list[Column], width: int) -> None:
    (head, *lines), hidden = laid_out(found, width)
    assert len(lines) == len(found[0].cells)
    room = max(width, found[0].natural)
    assert max(map(cell_len, (head, *lines))) <= room
    shown = found[: len(found) - len(hidden)]
    assert [column.name for column in found[len(shown) :]] == hidden
    for column in shown:
        for line, cell in zip(lines, column.cells, strict=True):
            assert column.text or cell in line


@given(columns())
def test_nothing_is_cut_or_left_out_without_a_terminal(found: list[Column]) -> None:
    (_, *lines), hidden = laid_out(found, None)
    assert hidden == []
    for column in found:
        assert all(cell.rstrip() in line for line, cell in zip(lines, column.cells, strict=True))


def test_long_texts_give_way_before_a_column_does() -> None:
    table = [
        Column("id", ("ep_1", "ep_2")),
        Column("url", ("https://example.com/a/long/path", "https://b.example"), text=True),
        Column("count", ("7", "12"), number=True),
        Column("reason", ("it failed for five days", ""), text=True),
    ]
    lines, hidden = laid_out(table, 50)
    assert hidden == []
    assert lines == [
        "id    url                count  reason",
        "ep_1  https://example.…      7  it failed for fiv…",
        "ep_2  https://b.example     12",
    ]
    lines, hidden = laid_out(table, 4 + 2 * GAP + SHORTEST + 5)
    assert (lines[0], hidden) == ("id    url           count", ["reason"])
    assert laid_out(table, 1) == (["id", "ep_1", "ep_2"], ["url", "count", "reason"])


def test_every_completion_names_something_that_exists() -> None:
    """They are looked up by name when a key is pressed, so nobody sees a wrong one before."""
    from receiver.cli import completing

    for offer in ("statuses", "outcomes", "states", "platforms", "event_types"):
        assert getattr(completing, offer)(""), offer
    assert completing.statuses("par") == [("partial", ""), ("partially_failed", "")]
    client = import_module("receiver.client").Client
    for kind in ("tasks", "callbacks", "events", "endpoints", "deliveries", "jobs"):
        assert callable(getattr(client, kind))


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("limit", "sizes", "more"),
    [(350, [200, 150], True), (7, [7], True), (900, [200] * 3, False)],
)
async def test_a_list_is_read_page_by_page(
    capsys: pytest.CaptureFixture[str], limit: int, sizes: list[int], more: bool
) -> None:
    asked: list[tuple[int, str | None]] = []

    async def ask(*, team: str, limit: int, cursor: str | None) -> Listing[Row]:
        assert team == "film"
        asked.append((limit, cursor))
        rows = [Row(id=f"row_{len(asked)}_{n}") for n in range(limit)]
        return Listing[Row](data=rows, next_cursor=None if len(asked) == 3 else f"c{len(asked)}")

    await listing(ask, {"team": "film"}, limit, False, ("id",), "Nothing.")
    shown = capsys.readouterr()
    assert [size for size, _ in asked] == sizes
    assert [cursor for _, cursor in asked] == [None, "c1", "c2"][: len(sizes)]
    assert len(shown.out.splitlines()) == 1 + sum(sizes)
    assert ("raise --limit" in shown.err) is more


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("team", "said"),
    [(None, "None yet. Try to add one.\n"), ("film", "Nothing matches these options.\n")],
)
async def test_an_empty_list_says_what_fills_it_unless_options_emptied_it(
    capsys: pytest.CaptureFixture[str], team: str | None, said: str
) -> None:
    async def ask(*, team: str | None, limit: int, cursor: str | None) -> Listing[Row]:
        return Listing[Row](data=[], next_cursor=None)

    await listing(ask, {"team": team}, 5, False, ("id",), "None yet. Try to add one.")
    assert capsys.readouterr() == ("", said)


def test_fields_stand_below_each_other_however_long_their_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show(Wide(id="row_1", a_name_that_is_longer=2.5), False)
    short, long = capsys.readouterr().out.splitlines()
    assert short.index("row_1") == long.index("2.5")


class Row(BaseModel):
    """A row of a list."""

    id: str


class Wide(Row):
    """A row with a long name."""

    a_name_that_is_longer: float
