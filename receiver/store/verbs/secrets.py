"""Floor 2, edges: the columns of endpoints that hold credentials, sealed or not. stdlib only.

`secrets` and `private_keys` are JSON lists of {"secret", "until"}, newest first; `headers` is a
JSON object. Their values alone are sealed, so that names and times can be read without a key.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

from receiver.deliveries import Outcome
from receiver.delivery.rotation import Key
from receiver.platforms.reading import dumps
from receiver.store.connection import Connection
from receiver.store.seal import Kept, Seal

SECRETS, PRIVATE_KEYS, HEADERS = "secrets", "private_keys", "headers"
REDACTED: Final = "[redacted]"
SHORTEST: Final = 8  # characters; shorter words may stand in any answer
COLUMNS: Final = (SECRETS, PRIVATE_KEYS, HEADERS)


def keys_text(seal: Seal, endpoint: int, column: str, keys: Sequence[Key]) -> str:
    """Keys as their column has them."""
    place = _place(endpoint, column)
    return dumps([{"secret": seal.close(place, key.text), "until": key.until} for key in keys])


def keys_of(seal: Seal, endpoint: int, column: str, text: str) -> tuple[Key, ...]:
    """The keys of a column. Raises CannotOpen."""
    place = _place(endpoint, column)
    found = json.loads(text)
    return tuple(Key(seal.open(place, entry["secret"]), entry["until"]) for entry in found)


def overlap_of(text: str) -> int | None:
    """Until when earlier keys of a column sign along; needs no key to read."""
    return max((entry["until"] for entry in json.loads(text) if entry["until"]), default=None)


def headers_text(seal: Seal, endpoint: int, headers: Mapping[str, str]) -> str:
    """Headers as their column has them."""
    return dumps(
        {name: seal.close(_place(endpoint, HEADERS, name), headers[name]) for name in headers}
    )


def headers_of(seal: Seal, endpoint: int, text: str) -> dict[str, str]:
    """The headers of a column. Raises CannotOpen."""
    found: dict[str, Kept] = json.loads(text)
    return {name: seal.open(_place(endpoint, HEADERS, name), found[name]) for name in found}


def without_headers(seal: Seal, outcome: Outcome, own: Mapping[str, str]) -> Outcome:
    """What an attempt saw, as its record keeps it: in clear, so without what is sealed elsewhere.

    The sender strikes out what looks like a credential; here it is every header of the endpoint.
    """
    if not (seal.seals and own):
        return outcome
    names = {name.lower() for name in own}
    sent = (outcome.request_headers or {}).items()
    body = outcome.response_body
    for value in own.values():
        if len(value) >= SHORTEST:
            body = body.replace(value.encode(), REDACTED.encode())
    headers = {name: REDACTED if name.lower() in names else value for name, value in sent}
    return replace(outcome, request_headers=headers, response_body=body)


def _place(endpoint: int, *names: str) -> str:
    return "/".join(["endpoints", str(endpoint), *names])


def check_seal(connection: Connection, seal: Seal, columns: Sequence[str] = COLUMNS) -> None:
    """Raises CannotOpen unless everything that is sealed in them can be opened; reads only."""
    for place, kept in _all_placed(connection, columns):
        seal.open(place, kept)


def older_than(connection: Connection, seal: Seal) -> list[Kept]:
    """What is in clear, or sealed by an older key, of a seal that has one."""
    if not seal.seals:
        return []
    found = [kept for _, kept in _all_placed(connection, COLUMNS)]
    return [kept for kept in found if not seal.is_newest(kept)]


def sealed_anew(seal: Seal, endpoint: int, column: str, text: str) -> str:
    """A column's text, sealed by the newest key. Raises CannotOpen."""
    if column == HEADERS:
        return headers_text(seal, endpoint, headers_of(seal, endpoint, text))
    return keys_text(seal, endpoint, column, keys_of(seal, endpoint, column, text))


def _all_placed(connection: Connection, columns: Sequence[str]) -> Iterator[tuple[str, Kept]]:
    if not columns:
        return
    rows = connection.execute(f"SELECT id, {', '.join(columns)} FROM endpoints").fetchall()
    for number, *texts in rows:
        for column, text in zip(columns, texts, strict=True):
            yield from _values(number, column, text)


def _values(endpoint: int, column: str, text: str) -> Iterator[tuple[str, Kept]]:
    found = json.loads(text)
    if column == HEADERS:
        yield from ((_place(endpoint, column, name), kept) for name, kept in found.items())
    else:
        yield from ((_place(endpoint, column), entry["secret"]) for entry in found)
