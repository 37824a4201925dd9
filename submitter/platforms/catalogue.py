"""Floor 2, edges: the platforms that are shipped: a new one is a file beside this, a line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from submitter.errors import MissingKey
from submitter.platforms import runware
from submitter.platforms.protocol import Platform


@dataclass(frozen=True, slots=True)
class Shipped:
    """A platform's settings, and how an account at it is made of a key and a base URL."""

    setting: str
    base_setting: str
    base_url: str
    make: Callable[[str, str], Platform]


SHIPPED: Final[Mapping[str, Shipped]] = {
    runware.NAME: Shipped(runware.SETTING, runware.BASE_SETTING, runware.BASE_URL, runware.Runware),
}
DEFAULT: Final = runware.NAME


def key_in(environ: Mapping[str, str], name: str) -> str:
    """A platform's key in an environment; empty where there is none."""
    return environ.get(SHIPPED[name].setting, "").strip()  # a secrets file ends with a line break


def base_url_in(environ: Mapping[str, str], name: str) -> str:
    """Where a platform is asked."""
    return environ.get(SHIPPED[name].base_setting) or SHIPPED[name].base_url


def account(environ: Mapping[str, str], name: str) -> Platform:
    """The account that an environment has at a platform. Raises MissingKey."""
    if not (key := key_in(environ, name)):
        raise MissingKey(platform=name, setting=SHIPPED[name].setting)
    return SHIPPED[name].make(key, base_url_in(environ, name))
