"""The floors of the house, drawn once as data and held against every import of the code.

A module imports lower floors, and on its own floor only what stands above it in the drawing. So the
order of the lines is a rule too. `.*` places a whole room. Behind a module stand the third-party
packages (and sqlite3) that it may import; nothing else may.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
PACKAGES: Final = ("receiver", "submitter")

DRAWING: Final = """\
0 nouns
    receiver
    receiver.errors
    receiver.clock
    receiver.ids
    receiver.problems
    receiver.access             pydantic
    receiver.refusals
    receiver.shown
    receiver.tracing
    receiver.platforms.*        pydantic_core
    receiver.tokens             itsdangerous
    receiver.sessions           itsdangerous pydantic
    receiver.results            pydantic
    receiver.tasks              pydantic
    receiver.callbacks          pydantic
    receiver.events             pydantic
    receiver.payloads           pydantic
    receiver.endpoints          pydantic
    receiver.feed
    receiver.heard
    receiver.deliveries         pydantic
    receiver.repair             pydantic
    receiver.keeping            pydantic
    receiver.costs              pydantic
    receiver.figures            pydantic
    receiver.condition          pydantic
    receiver.whereabouts
    receiver.backups            pydantic
    submitter.errors
    submitter.tasks
    submitter.requests.*        pydantic

1 decisions
    receiver.delivery.policy
    receiver.delivery.health
    receiver.delivery.signing   cryptography
    receiver.delivery.rotation
    receiver.recording
    receiver.reprocessing
    receiver.reconciling
    receiver.expectations
    submitter.rules.*
    submitter.pace
    submitter.kept

2 edges
    receiver.limits
    receiver.directories
    receiver.log                structlog pydantic_core
    receiver.metrics            prometheus_client
    receiver.connection         uvicorn httptools
    receiver.server             uvicorn uvloop starlette
    receiver.outside            httpx
    receiver.calling            httpx pydantic
    receiver.following          httpx
    receiver.client             pydantic
    receiver.delivery.ourselves yarl
    receiver.delivery.guard     aiohttp yarl
    receiver.delivery.sender    aiohttp yarl multidict
    receiver.store.access
    receiver.store.ledger
    receiver.store.protocol
    receiver.store.seal         cryptography
    receiver.store.connection
    receiver.store.faults
    receiver.store.commits
    receiver.store.writer
    receiver.store.verbs.*
    receiver.store.migrate      sqlite3
    receiver.store.sqlite.*     sqlite3 aiosqlite
    receiver.store.postgres.*   asyncpg
    receiver.store.moving.*     sqlite3 asyncpg
    submitter.processes         anyio
    submitter.tunnel            anyio httpx
    submitter.notices
    submitter.environment       platformdirs
    submitter.media
    submitter.door              httpx
    submitter.webhook
    submitter.platforms.*       httpx stamina
    submitter.consumer          starlette uvicorn
    submitter.simulator.*       anyio httpx pydantic starlette uvicorn typer

3 flows
    receiver.deadlines
    receiver.retention
    receiver.jobs
    receiver.alerts
    receiver.ingest             starlette
    receiver.delivery.worker
    receiver.admin.ops.*
    submitter.dev               anyio
    submitter.handle            stamina
    submitter.drafts
    submitter.ledger            pydantic stamina
    submitter.submit
    submitter.reconcile
    submitter.blocking          anyio

4 doors
    receiver.admin.sessions     starlette
    receiver.admin.auth         starlette
    receiver.admin.routes.*     starlette pydantic pydantic_core
    receiver.admin.stream       starlette pydantic
    receiver.admin.dashboard.*  starlette jinja2 pydantic markupsafe
    receiver.admin.openapi.*    starlette pydantic jinja2 markupsafe
    receiver.admin.api          starlette

5 assembly
    receiver.settings           pydantic platformdirs
    receiver.journal            starlette
    receiver.stores
    receiver.loops              starlette
    receiver.app                starlette
    receiver.serve
    receiver.inprocess
    receiver.testing            pytest anyio
    receiver.doctor.*
    receiver.cli.help           typer
    receiver.cli.table          rich
    receiver.cli.completing     typer
    receiver.cli.options        typer
    receiver.cli.output         typer pydantic
    receiver.cli.ledger         typer
    receiver.cli.inbound        typer
    receiver.cli.outbound       typer
    receiver.cli.repair         typer
    receiver.cli.upkeep         typer
    receiver.cli.access         typer
    receiver.cli.backups        typer
    receiver.cli.moving         typer
    receiver.listen             httpx
    receiver.cli.listening      typer httpx
    receiver.cli.login          typer
    receiver.cli                typer
    receiver.__main__
    submitter.demo              httpx
    submitter.trigger           httpx
    submitter.reconciler
    submitter.testing           pytest anyio httpx
    submitter.cli.*             typer rich anyio stamina
    submitter
"""

# What the submitter may know of the receiver; the receiver knows nothing of the submitter.
SHARED: Final = ("receiver.tokens", "receiver.client", "receiver.platforms")
# These play the outside world, so they must not share our mistakes.
STRANGERS: Final = ("submitter.simulator", "submitter.consumer")
# A concrete store is known to assembly alone; the doors know the use cases and their pages.
STORE: Final = "receiver.store"
STORE_PROTOCOL: Final = "receiver.store.protocol"
BEHIND_DOORS: Final = ("receiver.admin", STORE_PROTOCOL)

OF_AN_EXTRA: Final = "receiver.store.postgres"  # asyncpg

LONGEST_MODULE: Final = 500  # lines
LONGEST_FUNCTION: Final = 60  # lines of its body; the signature of a command is its list of options
NAMELESS: Final = frozenset({"utils", "helpers", "common", "base", "manager", "models"})
# Floors 0 and 1 do no I/O and draw no randomness; `receiver.clock` defines the wall clock.
IMPURE: Final = re.compile(
    r"(asyncio|http\.client|http\.server|io|logging|multiprocessing|os|pathlib|random|secrets"
    r"|select|selectors|shutil|signal|socket|ssl|subprocess|sys|tempfile|threading|time)(\.|$)"
)
IMPURE_CALLS: Final = frozenset({"now", "utcnow", "today", "uuid1", "uuid4", "open", "print"})
HOLDS_THE_CLOCK: Final = "receiver.clock"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module. `lazy`: inside a function; `typing`: under TYPE_CHECKING."""

    name: str
    line: int
    lazy: bool = False
    typing: bool = False


@dataclass(frozen=True, slots=True)
class Module:
    """One source file."""

    name: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]  # all of the tree's
    lines: int
    imports: tuple[Import, ...]

    @property
    def is_empty_package(self) -> bool:
        """A package file with nothing but its docstring stands on no floor."""
        return all(isinstance(part, ast.Expr) for part in self.tree.body)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the drawing puts a module."""

    floor: int
    row: int
    foreign: frozenset[str]
    pattern: str

    def holds(self, name: str) -> bool:
        room = self.pattern.removesuffix(".*")
        return name == room or (room != self.pattern and name.startswith(f"{room}."))


@dataclass(slots=True)
class House:
    """All modules by name, and their places."""

    modules: Mapping[str, Module]
    places: list[Place] = field(default_factory=lambda: list(_places(DRAWING)))

    def place(self, name: str) -> Place | None:
        found = [place for place in self.places if place.holds(name)]
        return found[0] if len(found) == 1 else None

    def ours(self, module: Module) -> Iterator[tuple[Import, Place, Place]]:
        """Each import of a placed module that leads to another placed one."""
        here = self.place(module.name)
        for imported in module.imports:
            there = self.place(imported.name) if imported.name in self.modules else None
            if here is not None and there is not None:
                yield imported, here, there


def _places(drawing: str) -> Iterator[Place]:
    floor = -1
    for row, line in enumerate(drawing.splitlines()):
        words = line.split()
        if line[:1].isdigit():
            floor = int(words[0])
        elif words:
            yield Place(floor, row, frozenset(words[1:]), words[0])


@cache
def read(name: str, text: str, names: frozenset[str]) -> Module:
    """A module out of its source; `from package import name` leads to package.name if it exists."""
    tree = ast.parse(text)
    found: list[Import] = []

    def visit(node: ast.AST, lazy: bool, typing: bool) -> None:
        if isinstance(node, ast.Import):
            found.extend(Import(part.name, node.lineno, lazy, typing) for part in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: imports are absolute here"
            base = node.module or ""
            for part in node.names:
                full = f"{base}.{part.name}"
                found.append(Import(full if full in names else base, node.lineno, lazy, typing))
        inner = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        only = typing or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.iter_child_nodes(node):
            visit(child, inner, only)

    visit(tree, False, False)
    return Module(name, tree, tuple(ast.walk(tree)), len(text.splitlines()), tuple(found))


def house(sources: Mapping[str, str]) -> House:
    """The house of these sources (module name: text)."""
    names = frozenset(sources)
    return House({name: read(name, text, names) for name, text in sources.items()})


def sources() -> dict[str, str]:
    """Every module of ours by name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name] = path.read_text()
    return found


Rule = Callable[[House], Iterator[str]]


def placed_once(built: House) -> Iterator[str]:
    """Each module has one place, and each place a module."""
    for name, module in built.modules.items():
        count = sum(place.holds(name) for place in built.places)
        if count != 1 and not (count == 0 and module.is_empty_package):
            yield f"{name} has {count} places in the drawing"
    for place in built.places:
        if not any(place.holds(name) for name in built.modules):
            yield f"{place.pattern} is drawn and does not exist"


def downward(built: House) -> Iterator[str]:
    """Lower floors; on the own floor what is drawn above. Within a room any order, no cycle.

    An import under TYPE_CHECKING is exempt from the order, since it can't fail at run time, but not
    from the floors: who names the types of a higher floor knows that floor.
    """
    for name, module in built.modules.items():
        for imported, here, there in built.ours(module):
            upward = there.floor > here.floor
            sideways = there.floor == here.floor and there.row > here.row
            if upward or (sideways and not imported.typing):
                yield f"{name}:{imported.line} imports {imported.name}, which is above it"


def acyclic(built: House) -> Iterator[str]:
    """No cycle, function bodies included."""
    graph = {
        name: {part.name for part in module.imports if not part.typing} & built.modules.keys()
        for name, module in built.modules.items()
    }
    try:
        TopologicalSorter({name: edges - {name} for name, edges in graph.items()}).prepare()
    except CycleError as error:
        yield f"cycle: {' -> '.join(error.args[1])}"


def eager(built: House) -> Iterator[str]:
    """Only commands import in function bodies, so that `--help` is quick, and plugins of pytest,
    which every session of their environment imports. And what needs an extra, where it is asked
    for."""
    for name, module in built.modules.items():
        place = built.place(name)
        if place is None or place.foreign & {"typer", "pytest"}:
            continue
        for imported in module.imports:
            if imported.lazy and not imported.name.startswith(OF_AN_EXTRA):
                yield f"{name}:{imported.line} imports {imported.name} inside a function"


def between_packages(built: House) -> Iterator[str]:
    """submitter -> receiver by three doors, receiver -> submitter never, strangers to nobody."""
    for name, module in built.modules.items():
        for imported in module.imports:
            if _within(imported.name, PACKAGES) and not _may_know(name, imported.name):
                yield f"{name}:{imported.line} must not import {imported.name}"
        if name.startswith("receiver"):
            for node in module.nodes:
                named = isinstance(node, ast.Constant) and str(node.value).startswith("submitter.")
                if named:
                    yield f"{name} names a module of the submitter"


def _may_know(name: str, other: str) -> bool:
    for stranger in STRANGERS:
        if _within(name, (stranger,)):
            return _within(other, (stranger,))
    if _within(name, ("submitter",)) and _within(other, ("receiver",)):
        return _within(other, SHARED)
    return _within(other, (name.partition(".")[0],))


def _within(name: str, rooms: Iterable[str]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def foreign(built: House) -> Iterator[str]:
    """The third-party packages of the drawing and no other; sqlite3 counts as one."""
    for name, module in built.modules.items():
        place = built.place(name)
        for imported in module.imports:
            top = imported.name.partition(".")[0]
            is_ours_or_free = top in PACKAGES or (
                top in sys.stdlib_module_names and top != "sqlite3"
            )
            if place is not None and not is_ours_or_free and top not in place.foreign:
                yield f"{name}:{imported.line} must not import {top}"


def pure(built: House) -> Iterator[str]:
    """Floors 0 and 1 do no I/O; decisions have no clock or randomness that is not passed in."""
    for name, module in built.modules.items():
        place = built.place(name)
        if place is None or place.floor > 1 or name == HOLDS_THE_CLOCK:
            continue
        for imported in module.imports:
            if IMPURE.match(imported.name):
                yield f"{name}:{imported.line} imports {imported.name} on floor {place.floor}"
        for node in module.nodes if place.floor == 1 else ():
            called = node.func if isinstance(node, ast.Call) else None
            word = getattr(called, "attr", getattr(called, "id", ""))
            if word in IMPURE_CALLS:
                yield f"{name}:{getattr(node, 'lineno', 0)} calls {word}() on floor 1"


def behind_the_doors(built: House) -> Iterator[str]:
    """Flows and doors know the store by its protocol, doors know of flows only admin.ops."""
    for name, module in built.modules.items():
        for imported, here, there in built.ours(module):
            if here.floor not in (3, 4):
                continue
            concrete = _within(imported.name, (STORE,)) and imported.name != STORE_PROTOCOL
            past = here.floor == 4 and there.floor and not _within(imported.name, BEHIND_DOORS)
            if concrete or past:
                yield f"{name}:{imported.line} reaches past its floor to {imported.name}"


def small(built: House) -> Iterator[str]:
    """Modules and functions that fit a head, under names that say something."""
    for name, module in built.modules.items():
        if module.lines > LONGEST_MODULE:
            yield f"{name} has {module.lines} lines"
        if name.rpartition(".")[2] in NAMELESS:
            yield f"{name} is a name that says nothing"
        for function in _functions(module):
            length = (function.end_lineno or 0) - function.body[0].lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{name}:{function.lineno} {function.name} has {length} lines"


def annotated(built: House) -> Iterator[str]:
    """Every argument and every return."""
    for name, module in built.modules.items():
        for function in _functions(module):
            given = function.args
            every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
            bare = [
                argument.arg
                for argument in every
                if argument and not argument.annotation and argument.arg not in ("self", "cls")
            ]
            if bare or function.returns is None:
                yield f"{name}:{function.lineno} {function.name} is not annotated: {bare}"


def _functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def named_floors(built: House) -> Iterator[str]:
    """A docstring everywhere; a receiver's names its floor, and nobody names a wrong one."""
    for name, module in built.modules.items():
        text = ast.get_docstring(module.tree) or ""
        if not text:
            yield f"{name} has no docstring"
        place = built.place(name)
        said = re.search(r"\bfloor (\d)", text.partition("\n")[0], re.IGNORECASE)
        if place is None or name in (*PACKAGES, "receiver.__main__"):
            continue
        if said is None and name.startswith("receiver."):
            yield f"{name} does not say its floor in its first line"
        if said is not None and int(said[1]) != place.floor:
            yield f"{name} says floor {said[1]} and stands on floor {place.floor}"


RULES: Final[tuple[Rule, ...]] = (
    placed_once,
    downward,
    acyclic,
    eager,
    between_packages,
    foreign,
    pure,
    behind_the_doors,
    small,
    annotated,
    named_floors,
)


@cache
def broken(rule: Rule) -> frozenset[str]:
    """How the house, as it is, breaks a rule."""
    return frozenset(rule(house(sources())))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps_the_rule(rule: Rule) -> None:
    assert broken(rule) == set()


LONG_BODY = "def f() -> None:\n" + "    x = 1\n" * 61
# Rule, the module that is changed, and what is written at its end.
MADE_UP: Final[tuple[tuple[Rule, str, str], ...]] = (
    (placed_once, "receiver.elsewhere", '"""Floor 2."""\nx = 1\n'),
    (downward, "receiver.clock", "import receiver.ingest\n"),
    (downward, "receiver.clock", "from receiver import tokens\n"),
    (downward, "receiver.clock", "if TYPE_CHECKING:\n    from receiver.ingest import Ingest\n"),
    (downward, "receiver.ingest", "from receiver.settings import Settings\n"),
    (acyclic, "receiver.errors", "def f() -> None:\n    import receiver.clock, receiver.tokens\n"),
    (eager, "receiver.ingest", "def f() -> None:\n    import receiver.tasks\n"),
    (between_packages, "receiver.app", "import submitter.tasks\n"),
    (between_packages, "receiver.app", "x = __import__('submitter.tasks')\n"),
    (between_packages, "submitter.dev", "import receiver.settings\n"),
    (between_packages, "submitter.simulator.jobs", "import receiver.tokens\n"),
    (between_packages, "submitter.simulator.jobs", "import submitter.tasks\n"),
    (foreign, "receiver.ingest", "import httpx\n"),
    (foreign, "receiver.admin.ops", "import sqlite3\n"),
    (foreign, "receiver.tasks", "def f() -> None:\n    import typer\n"),
    (pure, "receiver.tasks", "import asyncio\n"),
    (pure, "receiver.recording", "def f() -> object:\n    return datetime.now()\n"),
    (behind_the_doors, "receiver.ingest", "from receiver.store.sqlite import SqliteStore\n"),
    (behind_the_doors, "receiver.admin.api", "import receiver.delivery.worker\n"),
    (small, "receiver.clock", "\n" * 500),
    (small, "receiver.clock", LONG_BODY),
    (small, "receiver.store.utils", '"""Floor 2."""\n'),
    (annotated, "receiver.clock", "def f(x) -> None: ...\n"),
    (annotated, "receiver.clock", "async def f(*, x: int): ...\n"),
    (named_floors, "receiver.store.sqlite.extra", '"""Floor 3, flows: misplaced."""\nx = 1\n'),
    (named_floors, "receiver.store.sqlite.extra", "x = 1\n"),
)


@pytest.mark.parametrize(("rule", "name", "added"), MADE_UP)
def test_a_made_up_violation_is_found(rule: Rule, name: str, added: str) -> None:
    """The control: without it, a checker that sees nothing would pass for a clean house."""
    written = sources()
    written[name] = written.get(name, "") + added

    assert set(rule(house(written))) - broken(rule)


def test_submitter_may_use_its_three_doors() -> None:
    assert _may_know("submitter.webhook", "receiver.tokens")
    assert _may_know("submitter.platforms.runware", "receiver.platforms.runware")
    assert not _may_know("submitter.webhook", "receiver.tokens_of_another_kind")


def test_the_docs_draw_the_same_floors() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    for place in _places(DRAWING):
        row = re.search(rf"^\| {place.floor} .*$", page, re.MULTILINE)
        assert row is not None
        assert f"`{place.pattern}`" in row[0], f"docs/architecture.md, floor {place.floor}"
