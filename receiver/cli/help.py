"""Floor 5, assembly: how every command explains itself: examples first, and quickly. typer only.

Plain text of our own: typer's panels import rich with all it has for Markdown, which takes longer
than the 0.3 s that a whole `--help` may take. `dressed` gives a Typer and all below it this help,
commands of other packages included, so that none looks different.
"""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

# The sections of `reelhook --help`, in the order in which they are met.
RUN, SUBMIT, DELIVER, OPERATE = "Run it", "Submit", "Deliver", "Operate"
SECTIONS: Final = (RUN, SUBMIT, DELIVER, OPERATE)
REST: Final = "Commands"

WIDEST: Final = 100  # columns; longer lines are hard to read
NARROWEST: Final = 30  # columns of what stands beside a name; else below it
EXAMPLES_OF_A_GROUP: Final = 4
_EXAMPLE: Final = re.compile(r"\$?(?:[A-Z_]+=\S* )*reelhook\b")
_KINDS: Final = {"str": "TEXT", "int": "N", "float": "N", "list[str]": "TEXT", "path": "PATH"}


@dataclass(frozen=True, slots=True)
class Told:
    """What a command's docstring says, by its parts."""

    summary: str
    examples: tuple[str, ...]
    text: tuple[str, ...]


def told(command: Any) -> Told:
    """The parts of a command's help; a group without examples of its own has its commands' first.

    A paragraph is one of examples when each of its lines begins with `reelhook`, or with variables
    set for it.
    """
    summary, *rest = (part.strip() for part in (command.help or "").strip().split("\n\n"))
    examples, text = list[str](), list[str]()
    for part in rest:
        lines = part.splitlines()
        if all(_EXAMPLE.match(line.strip()) for line in lines):
            examples += [line.strip() for line in lines]
        else:
            text.append(" ".join(part.split()))
    if not examples and isinstance(command, TyperGroup):
        firsts = [told(child).examples[:1] for child in _shown(command)]
        examples = [example for first in firsts for example in first][:EXAMPLES_OF_A_GROUP]
    return Told(" ".join(summary.split()), tuple(examples), tuple(text))


def _shown(group: TyperGroup) -> list[Any]:
    return [command for command in group.commands.values() if not command.hidden]


def meaning_of(parameter: Any) -> str:
    """What an option or argument is for, with its default and where else it may be set."""
    meaning = [(parameter.help or "").strip().rstrip(".")]
    default, said = parameter.default, meaning[0]
    if parameter.required:
        meaning.append("required")
    elif default not in (None, "", False) and not callable(default) and f"[{default}]" not in said:
        meaning.append(f"default {default}")
    if parameter.multiple:
        meaning.append("repeatable")
    if parameter.envvar:
        meaning.append(f"also {parameter.envvar}")
    return "; ".join(part for part in meaning if part)


def name_of(argument: Any) -> str:
    """An argument as it stands in the usage."""
    return str(argument.metavar or argument.name).upper()


class _Explained:
    """Help as text; mixed into typer's own classes."""

    def get_help(self: Any, ctx: Any) -> str:
        """The whole help of a command, for the terminal there is."""
        width = min(shutil.get_terminal_size().columns, WIDEST)
        return "\n".join(_page(self, ctx, width)).rstrip()


class Command(_Explained, TyperCommand):
    """A command that explains itself as all of ours do."""


class Group(_Explained, TyperGroup):
    """A group that explains itself as all of ours do."""


def dressed(app: typer.Typer) -> typer.Typer:
    """The same Typer, whose commands and groups explain themselves as ours do."""
    app.info.cls = Group
    app.rich_markup_mode = None  # typer's own errors as text too
    for command in app.registered_commands:
        command.cls = Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            dressed(group.typer_instance)
    return app


def _page(command: Any, ctx: Any, width: int) -> Iterator[str]:
    parts = told(command)
    yield from [*textwrap.wrap(parts.summary, width), ""]
    if parts.examples:
        # Whole, since they are there to be copied.
        yield from [heading("Examples"), *(f"  {line}" for line in parts.examples), ""]
    for text in parts.text:
        yield from [*textwrap.wrap(text, width), ""]
    yield from [heading("Usage"), *_usage(command, ctx, width), ""]
    for title, rows in _tables(command, ctx):
        yield from [heading(title), *_columns(rows, width), ""]
    if isinstance(command, TyperGroup):
        yield from textwrap.wrap(f"`{ctx.command_path} COMMAND -h` explains one of them.", width)


def heading(text: str) -> str:
    """A line that stands above others, bold unless NO_COLOR is set (no-color.org)."""
    # Without a terminal typer takes the style out by itself.
    return text if os.environ.get("NO_COLOR") else typer.style(text, bold=True)


def _usage(command: Any, ctx: Any, width: int) -> list[str]:
    words = [ctx.command_path, "[OPTIONS]"]
    if isinstance(command, TyperGroup):
        words.append("COMMAND")
    for parameter in _of_kind(command, ctx, "argument"):
        name = name_of(parameter)
        words.append(name if parameter.required else f"[{name}]")
    line = " ".join(words)
    return textwrap.wrap(line, width, initial_indent="  ", subsequent_indent="      ")


def _tables(command: Any, ctx: Any) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    if isinstance(command, TyperGroup):
        yield from _sections(command)
    arguments = _of_kind(command, ctx, "argument")
    if arguments:
        yield "Arguments", [(name_of(found), meaning_of(found)) for found in arguments]
    panels: dict[str, list[tuple[str, str]]] = {}
    for option in _of_kind(command, ctx, "option"):
        row = (_spelled(option, ctx), meaning_of(option))
        panels.setdefault(option.rich_help_panel or "Options", []).append(row)
    yield from panels.items()


def _of_kind(command: Any, ctx: Any, kind: str) -> list[Any]:
    parameters = command.get_params(ctx)
    return [one for one in parameters if one.param_type_name == kind and not one.hidden]


def _sections(group: TyperGroup) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    found: dict[str, list[tuple[str, str]]] = {title: [] for title in (*SECTIONS, REST)}
    for command in _shown(group):
        panel = getattr(command, "rich_help_panel", None)
        title = panel if panel in found else REST
        found[title].append((command.name, told(command).summary))
    yield from ((title, rows) for title, rows in found.items() if rows)


def _spelled(option: Any, ctx: Any) -> str:
    names = ", ".join(sorted([*option.opts, *option.secondary_opts], key=_shortness))
    if option.is_flag or option.count:
        return names
    kind = str(option.display_type(ctx)).strip("<>").removesuffix(" range")
    return f"{names} {option.metavar or _KINDS.get(kind, kind)}"


def _shortness(name: str) -> bool:
    return name.startswith("--")  # typer keeps those of --help in a set


def _columns(rows: Iterable[tuple[str, str]], width: int) -> Iterator[str]:
    rows = list(rows)
    # What is far longer than the others, such as a choice of many, stands on a line of its own.
    left = max((len(name) for name, _ in rows if len(name) <= width // 3), default=0)
    beside = width - left - 4
    if not left or beside < NARROWEST:
        left, beside = 0, max(width - 6, 10)
    for name, meaning in rows:
        lines = textwrap.wrap(meaning, beside) or [""]
        if len(name) <= left:
            yield f"  {name:<{left}}  {lines.pop(0)}".rstrip()
        else:
            yield f"  {name}"
        indent = " " * (left + 4 if left else 6)
        yield from (f"{indent}{line}" for line in lines if line)
