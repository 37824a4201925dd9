"""Floor 0, nouns: every error of the receiver, with its evidence. Stdlib only.

    ReelhookError
    ├── TokenRefused            a signed URL that does not open the door (hint: 401)
    │   └── TokenExpired        authentic, too late (hint: 410)
    ├── Unreadable              a body no platform sends: quarantined, never refused
    ├── Refusal                 an API request that can't be done; carries status and code
    │   ├── Invalid             422
    │   │   └── KeyReused       another request had that Idempotency-Key
    │   ├── Unauthenticated     401
    │   ├── Forbidden           403
    │   ├── NotFound            404
    │   ├── Conflict            409
    │   │   ├── KeyInUse        the first request with that Idempotency-Key is not over
    │   │   ├── AnswerLost      it is, and nobody knows what it was answered
    │   │   └── BackupElsewhere the database's own tools make backups of it
    │   ├── PreconditionFailed  412
    │   └── Busy                503
    ├── StoreUnavailable        nothing was written; try again (503)
    │   ├── StoreSaturated      the writer's queue is full
    │   ├── StoreFull           the disk is nearly full
    │   └── StoreBroken         no write can be trusted any more: the receiver ends
    └── CannotStart             exit code 3
        ├── SettingsRefused     a setting is missing or wrong
        ├── StoreLocked         another process holds the database
        └── SchemaTooNew        the database belongs to a later release

Pure layers hint (`status`), the doors decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from receiver.tokens import Claims


class ReelhookError(Exception):
    """Something Reelhook names; `code` is stable, `evidence` says what was seen."""

    code: ClassVar[str] = "error"

    def __init__(self, message: str = "", **evidence: Any) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip().split("\n")[0])
        self.evidence: Mapping[str, Any] = evidence


class TokenRefused(ReelhookError):
    """The signed URL is not one of ours."""

    code = "token_refused"
    status: ClassVar[int] = 401


class TokenExpired(TokenRefused):
    """The signed URL is ours and has expired; `claims` are verified."""

    code = "token_expired"
    status = 410

    def __init__(self, claims: Claims) -> None:
        super().__init__(jti=claims.jti.hex(), expired_at=claims.expires_at)
        self.claims = claims


class Unreadable(ReelhookError):
    """A body that can't be read as any platform's callback; `reason` is stable."""

    code = "unreadable"

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(message or reason, reason=reason)
        self.reason = reason


class Refusal(ReelhookError):
    """An API request that can't be done as asked."""

    code = "refused"
    status: ClassVar[int] = 400


class Invalid(Refusal):
    """The request is understood and not valid; the message says what to change."""

    code = "invalid"
    status = 422


class Unauthenticated(Refusal):
    """Send `Authorization: Bearer` with the admin token or an API token."""

    code = "unauthenticated"
    status = 401


class Forbidden(Refusal):
    """The token is known and may not do this."""

    code = "forbidden"
    status = 403


class NotFound(Refusal):
    """There is nothing by that id."""

    code = "not_found"
    status = 404


class Conflict(Refusal):
    """The request contradicts what is stored."""

    code = "conflict"
    status = 409


class Busy(Refusal):
    """As many do this as may at once; come again."""

    code = "busy"
    status = 503


class KeyReused(Invalid):
    """That Idempotency-Key belongs to another request: make a new key for each."""

    code = "idempotency_key_reused"


class KeyInUse(Conflict):
    """The first request with that Idempotency-Key is still at work: ask again in a moment."""

    code = "idempotency_key_in_use"


class AnswerLost(Conflict):
    """The first request with that Idempotency-Key did its work and its answer was not kept."""

    code = "idempotency_answer_lost"


class BackupElsewhere(Conflict):
    """PostgreSQL makes its own backups: pg_dump, pg_basebackup, or the snapshots of its host."""

    code = "backup_elsewhere"


class PreconditionFailed(Refusal):
    """It was changed meanwhile: read it again, and send the ETag that it has now."""

    code = "precondition_failed"
    status = 412


class StoreUnavailable(ReelhookError):
    """The store could not commit; nothing was acknowledged, try again."""

    code = "store_unavailable"

    def again(self) -> Self:
        """The same for one more waiter: an exception raised twice would keep both tracebacks."""
        return type(self)(str(self), **self.evidence)


class StoreSaturated(StoreUnavailable):
    """The writer's queue is full; try again shortly."""

    code = "store_saturated"


class StoreFull(StoreUnavailable):
    """The disk is nearly full; callbacks are taken in again once there is room."""

    code = "store_full"


class StoreBroken(StoreUnavailable):
    """No write can be trusted any more; the receiver ends, and goes on from disk when restarted."""

    code = "store_broken"


class CannotStart(ReelhookError):
    """The receiver refuses to start; the message says what to change."""

    code = "cannot_start"


class SettingsRefused(CannotStart):
    """A setting is missing or wrong."""

    code = "settings_refused"


class StoreLocked(CannotStart):
    """Another process holds the database."""

    code = "store_locked"


class SchemaTooNew(CannotStart):
    """The database was written by a later release; nothing was touched."""

    code = "schema_too_new"
