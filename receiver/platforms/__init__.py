"""Floor 0, nouns: how each platform calls back, one file a platform. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from receiver.errors import Unreadable
from receiver.platforms import runware
from receiver.platforms.items import Item

__all__ = ["PARSERS", "Parser", "Unreadable"]

Parser = Callable[[Any, str | None], list[Item]]

PARSERS: Final[Mapping[str, Parser]] = {"runware": runware.parse}
