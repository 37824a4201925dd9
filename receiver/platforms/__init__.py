"""Floor 0, nouns: how each platform tells of its tasks, one file a platform. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from receiver.errors import Unreadable
from receiver.platforms import nanogpt, runware
from receiver.platforms.items import Category, Item

__all__ = ["PARSERS", "PLATFORMS", "POLLED", "Parser", "Platform", "Unreadable"]

Parser = Callable[[Any, str | None], list[Item]]


@dataclass(frozen=True, slots=True)
class Platform:
    """What the receiver knows of a platform.

    `parse` makes items of a body and raises nothing but Unreadable, `categorise` gives a raw error
    code's category. A platform that does not call back is polled from the submit on.
    """

    name: str
    parse: Parser
    calls_back: bool
    categorise: Callable[[str], Category]


PLATFORMS: Final[Mapping[str, Platform]] = {
    platform.name: platform
    for platform in (
        Platform("runware", runware.parse, True, runware.categorise),
        Platform("nanogpt", nanogpt.parse, False, nanogpt.categorise),
    )
}
PARSERS: Final[Mapping[str, Parser]] = {name: known.parse for name, known in PLATFORMS.items()}
POLLED: Final = frozenset(name for name, known in PLATFORMS.items() if not known.calls_back)
