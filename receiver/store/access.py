"""Floor 2, edges: what a store keeps of tokens, of manual actions, and of answers to repeat.

A part of `receiver.store.protocol`, where flows find it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from receiver.access import ApiToken, ApiTokenAsked, OnceKey


@dataclass(frozen=True, slots=True)
class NewApiToken:
    """A token to keep: its digest, and what lists show of it. Times in milliseconds."""

    asked: ApiTokenAsked
    digest: bytes = field(repr=False)
    hint: str
    created_by: str
    now: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """An API token that somebody shows; `expires_at` in milliseconds."""

    token: ApiToken
    expires_at: int | None


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a login link logs in: `admin`, or an API token's id with its name and its project."""

    name: str
    title: str = ""
    project: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request was answered; `text` is sealed by whoever keeps it."""

    status: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Once:
    """A request with an Idempotency-Key. `asked` is a digest of it; times in milliseconds.

    After `lease` a request that changed nothing is believed to be gone, after `kept` all is
    forgotten.
    """

    key: OnceKey
    asked: bytes
    now: int
    lease: int
    kept: int


@dataclass(frozen=True, slots=True)
class NewLogin:
    """A link that logs in once: the digest of its code, and whom. Times in milliseconds."""

    digest: bytes
    holder: str
    now: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class EndedSession:
    """A session that is over before its time. Times in milliseconds."""

    id: str
    now: int
    expires_at: int
