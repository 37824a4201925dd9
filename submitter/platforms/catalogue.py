"""Floor 2, edges: the platforms that are shipped: a new one is a file beside this, a line here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from submitter.errors import MissingKey, UnusableUrl
from submitter.platforms import nanogpt, runware
from submitter.platforms.answers import is_url
from submitter.platforms.protocol import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A platform's name for people, its settings, and how an account is made of a key and a URL.

    `discover` asks it for its models, with a key or without; None where it has no such list.
    """

    title: str
    setting: str
    base_setting: str
    base_url: str
    most_results: int
    make: Callable[[str, str], Platform]
    discover: Callable[[str, str], Awaitable[list[dict[str, Any]]]] | None = None


SHIPPED: Final[Mapping[str, Shipped]] = {
    runware.NAME: Shipped(
        title="Runware",
        setting=runware.SETTING,
        base_setting=runware.BASE_SETTING,
        base_url=runware.BASE_URL,
        most_results=runware.MOST_RESULTS,
        make=runware.Runware,
    ),
    nanogpt.NAME: Shipped(
        title="NanoGPT",
        setting=nanogpt.SETTING,
        base_setting=nanogpt.BASE_SETTING,
        base_url=nanogpt.BASE_URL,
        most_results=nanogpt.MOST_RESULTS,
        make=nanogpt.NanoGPT,
        discover=nanogpt.models,
    ),
}
DEFAULT: Final = runware.NAME


def key_in(environ: Mapping[str, str], name: str) -> str:
    """A platform's key in an environment; empty where there is none."""
    return environ.get(SHIPPED[name].setting, "").strip()  # a secrets file ends with a line break


def base_url_in(environ: Mapping[str, str], name: str) -> str:
    """Where a platform is asked. Raises UnusableUrl."""
    shipped = SHIPPED[name]
    url = environ.get(shipped.base_setting) or shipped.base_url
    if not is_url(url):
        raise UnusableUrl(
            platform=shipped.title, setting=shipped.base_setting, url=url, example=shipped.base_url
        )
    return url


def account(environ: Mapping[str, str], name: str) -> Platform:
    """The account that an environment has at a platform. Raises MissingKey and UnusableUrl."""
    if not (key := key_in(environ, name)):
        raise MissingKey(platform=name, setting=SHIPPED[name].setting)
    return SHIPPED[name].make(key, base_url_in(environ, name))
