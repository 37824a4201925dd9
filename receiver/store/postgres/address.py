"""Floor 2, edges: the URL of a database, of which nobody is told the password. stdlib only.

What asyncpg and urllib say of a URL that they can't read quotes parts of it, and where a password
has a `/` or an `@` in it those are parts of the password. So a URL is judged here, before they are.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from receiver.errors import CannotStart

_HOST: Final = re.compile(r"(?:\[[^\]]*\]|[^:\[\]]*)(?::\d*)?")


def checked(url: str) -> SplitResult:
    """The parts of a URL. Raises CannotStart for what is none; it says nothing of the URL."""
    try:
        parts: SplitResult | None = urlsplit(url)
    except ValueError:
        parts = None  # and what it says is told to nobody
    if parts is not None and _is_readable(parts):
        _check_files(parts)
        return parts
    raise CannotStart(
        "DATABASE_URL can't be read. It has to be postgresql://user:password@host:port/database,"
        " and in the password each character that is neither a letter nor a digit is written by its"
        " code (`/` as %2F, `@` as %40, `#` as %23, `?` as %3F, `%` as %25)."
    )


def _is_readable(parts: SplitResult) -> bool:
    hosts = parts.netloc.rpartition("@")[2].split(",")
    return (
        parts.scheme in ("postgresql", "postgres")
        and not parts.fragment
        and "@" not in parts.path + parts.query.partition("=")[0]
        and all(_HOST.fullmatch(host) for host in hosts)
    )


def _check_files(parts: SplitResult) -> None:
    # Without this it would be a file that is not there, and no name.
    for name, value in parse_qsl(parts.query):
        if name in ("sslrootcert", "sslcert", "sslkey") and not Path(value).is_file():
            raise CannotStart(f"DATABASE_URL has {name}={value}, and there is no such file.")


def host_of(url: str) -> str:
    """The server that a URL names, as a person calls it. Raises CannotStart."""
    parts = checked(url)
    host = unquote(parts.netloc.rpartition("@")[2]) or dict(parse_qsl(parts.query)).get("host", "")
    return "a local socket" if not host or host.startswith("/") else host
