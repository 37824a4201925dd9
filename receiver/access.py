"""Floor 0, nouns: who may do what, and who did it. Stdlib and pydantic.

A token is 256 random bits, so that one round of SHA-256 is all that its hash needs: there is no
dictionary to try. Nothing but that hash is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from receiver import ids

PREFIX: Final = "rhk_"  # so that scanners for secrets, and people, know what it is
BYTES: Final = 32  # of randomness in a token
HINT: Final = 4  # characters of a token that lists show


class Scope(StrEnum):
    """What an API token was made for (design §6)."""

    SUBMIT = "submit"  # the ledger's verbs: whoever sends tasks to a platform
    READ = "read"  # everything that is no secret
    ADMIN = "admin"  # everything


# Which scopes a route lets in; an admin may do whatever the others may.
LEDGER: Final[Set[Scope]] = frozenset({Scope.SUBMIT, Scope.READ, Scope.ADMIN})
SUBMITTERS: Final[Set[Scope]] = frozenset({Scope.SUBMIT, Scope.ADMIN})
READERS: Final[Set[Scope]] = frozenset({Scope.READ, Scope.ADMIN})
ADMINS: Final[Set[Scope]] = frozenset({Scope.ADMIN})


class ApiTokenAsked(BaseModel):
    """A token to make. `project` None: for all projects. `expires_at` None: it never lapses."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")
    scope: Scope
    project: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    expires_at: datetime | None = None


class ApiToken(BaseModel):
    """A token as lists show it; `hint` are its last characters, `created_by` an actor."""

    id: str
    name: str
    scope: Scope
    project: str | None
    hint: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None  # within a minute or two


class NewApiToken(ApiToken):
    """A token that was just made; `token` is in this answer alone."""

    token: str = Field(repr=False)


def token_of(entropy: bytes) -> str:
    """The text of a token out of `BYTES` random bytes: Crockford's base 32, which a double click
    marks as one word."""
    return PREFIX + ids.text_of(entropy)


def digest_of(token: str) -> bytes:
    """What is kept of a token, and looked for."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


class Action(StrEnum):
    """What somebody can do by hand; each leaves a row in the audit log."""

    TASK_REVOKE = "task.revoke"
    TASK_RECONCILE = "task.reconcile"
    TASK_DELETE = "task.delete"
    CALLBACK_REPROCESS = "callback.reprocess"
    CALLBACK_DELETE = "callback.delete"
    ENDPOINT_CREATE = "endpoint.create"
    ENDPOINT_CHANGE = "endpoint.change"
    ENDPOINT_ENABLE = "endpoint.enable"
    ENDPOINT_PAUSE = "endpoint.pause"
    ENDPOINT_DISABLE = "endpoint.disable"
    ENDPOINT_ROTATE_SECRET = "endpoint.rotate_secret"  # noqa: S105 - the name of an action
    ENDPOINT_TEST = "endpoint.test"
    ENDPOINT_CANCEL = "endpoint.cancel"
    ENDPOINT_RECOVER = "endpoint.recover"
    ENDPOINT_DELETE = "endpoint.delete"
    EVENT_REPLAY = "event.replay"
    DELIVERY_RETRY = "delivery.retry"
    DELIVERY_CANCEL = "delivery.cancel"
    DELIVERIES_RETRY = "deliveries.retry"
    JOB_CANCEL = "job.cancel"
    API_TOKEN_CREATE = "api_token.create"  # noqa: S105
    API_TOKEN_DELETE = "api_token.delete"  # noqa: S105
    LOGIN_LINK_CREATE = "login_link.create"
    SESSION_BEGIN = "session.begin"
    SESSION_END = "session.end"
    PRUNE = "prune"
    BACKUP = "backup"


@dataclass(frozen=True, slots=True)
class OnceKey:
    """An Idempotency-Key, and whose it is."""

    owner: str
    key: str


@dataclass(frozen=True, slots=True)
class Deed:
    """A manual action, as its row will have it. `at` in milliseconds; `details` hold no secret."""

    at: int
    actor: str
    actor_name: str
    action: Action
    target: str | None
    project: str | None
    request_id: str | None
    details: Mapping[str, Any]
    once: OnceKey | None = None  # the request that must not do it twice


# What became of a verb, as the row of it; None: nothing happened.
Note = Callable[[Any], Deed | None]


class AuditEntry(BaseModel):
    """One row of the audit log; `actor` is `admin`, or the id of an API token."""

    seq: int
    at: datetime
    actor: str
    actor_name: str
    action: Action
    target: str | None
    project: str | None
    request_id: str | None
    details: dict[str, Any]
