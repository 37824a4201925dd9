"""Errors of the submitter (floor 0), each with its evidence and a stable `code`.

    SubmitterError
    ├── MalformedAssignment   key=value text that cannot be read
    ├── UnusableMedia         a local file cannot be sent as a media input; nothing was sent
    ├── InvalidTask           the parameter rules refuse the task; nothing was sent
    ├── IdempotencyConflict   the same idempotency key came with another request
    ├── MissingKey            the platform's API key is not set
    ├── UnusableUrl           the platform's base URL is none
    ├── PublicUrlRefused      no callback could arrive at this public URL
    ├── LedgerUnavailable     the receiver did not register the task; nothing was sent
    ├── PlatformRejected      the platform answered no
    ├── PlatformUnavailable   the platform certainly did not accept; trying again is safe
    │   └── KeyRefused        it refuses our API key, whatever is asked
    ├── OriginalNeeded        the ledger has but digests of the task's media; nothing was sent
    ├── AmbiguousSubmit       it may have been accepted; trying again may be billed twice
    └── WaitTimedOut          results are still owed

A docstring is the class's default message; the fields are filled into it.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["error", "warning"]

_USERINFO = re.compile(r"//[^/]*@")


def without_secrets(url: str) -> str:
    """A URL for logs: its query may hold a token, and its user part a password."""
    return _USERINFO.sub("//", re.split(r"[?#]", url, maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class Finding:
    """What one parameter rule has to say about a task."""

    severity: Severity
    code: str
    parameter: str
    message: str
    allowed: tuple[Any, ...] | None = None

    def as_json(self) -> dict[str, Any]:
        allowed = None if self.allowed is None else list(self.allowed)
        return {
            "severity": self.severity,
            "code": self.code,
            "parameter": self.parameter,
            "message": self.message,
            "allowed": allowed,
        }


@dataclass(kw_only=True, eq=False)
class SubmitterError(Exception):
    """The submitter could not do what was asked."""

    message: str = field(default="", kw_only=False)
    code: str = field(default="submitter_error", init=False)

    def __post_init__(self) -> None:
        self.args = (str(self),)

    def __str__(self) -> str:
        return self.message or self.default_message()

    def default_message(self) -> str:
        # `python -OO` removes docstrings.
        return (type(self).__doc__ or self.code).format_map(vars(self))


@dataclass(kw_only=True, eq=False)
class MalformedAssignment(SubmitterError):
    """Cannot read {text!r}: {reason}"""

    text: str
    reason: str
    code: str = field(default="malformed_assignment", init=False)


@dataclass(kw_only=True, eq=False)
class UnusableMedia(SubmitterError):
    """Cannot send {path} as {parameter}: {reason}"""

    parameter: str
    path: str
    reason: str
    code: str = field(default="unusable_media", init=False)


@dataclass(kw_only=True, eq=False)
class InvalidTask(SubmitterError):
    """The task was not sent because of its parameters."""

    findings: tuple[Finding, ...]
    code: str = field(default="invalid_task", init=False)

    def default_message(self) -> str:
        said = [f.message for f in self.findings if f.severity == "error"]
        return " ".join([super().default_message(), *said])


@dataclass(kw_only=True, eq=False)
class IdempotencyConflict(SubmitterError):
    """Idempotency key {key!r} belongs to another request (task {task_id}). Use a new key."""

    key: str
    task_id: str
    code: str = field(default="idempotency_conflict", init=False)


@dataclass(kw_only=True, eq=False)
class MissingKey(SubmitterError):
    """There is no API key for {platform}. Set {setting} and try again."""

    platform: str
    setting: str
    code: str = field(default="missing_key", init=False)


@dataclass(kw_only=True, eq=False)
class UnusableUrl(SubmitterError):
    """{setting} is {url!r}: no URL of {platform}. Unset it, or set one such as {example}."""

    platform: str
    setting: str
    url: str
    example: str
    code: str = field(default="unusable_url", init=False)

    def __post_init__(self) -> None:
        self.url = without_secrets(self.url)
        super().__post_init__()


@dataclass(kw_only=True, eq=False)
class PublicUrlRefused(SubmitterError):
    """No callback can arrive at {url}: {reason}"""

    url: str
    reason: str
    code: str = field(default="public_url_refused", init=False)

    def __post_init__(self) -> None:
        self.url = without_secrets(self.url)
        super().__post_init__()


@dataclass(kw_only=True, eq=False)
class LedgerUnavailable(SubmitterError):
    """Task {task_id} was not sent: the receiver did not register it ({reason}). Is it running?"""

    task_id: str
    reason: str
    status: int | None = None
    code: str = field(default="ledger_unavailable", init=False)


@dataclass(kw_only=True, eq=False)
class PlatformRejected(SubmitterError):
    """{platform} rejected task {task_id}. Change the request before sending it again."""

    platform: str
    task_id: str | None = None
    http_status: int | None = None
    parameter: str | tuple[str, ...] | None = None
    code: str = "platform_rejected"


@dataclass(kw_only=True, eq=False)
class PlatformUnavailable(SubmitterError):
    """{platform} did not accept task {task_id} ({reason}). Nothing runs: send it again later."""

    platform: str
    task_id: str
    reason: str
    http_status: int | None = None
    retry_after_s: float | None = None
    code: str = field(default="platform_unavailable", init=False)


@dataclass(kw_only=True, eq=False)
class KeyRefused(PlatformUnavailable):
    """{platform} refuses the API key ({reason}). Set {setting} to one that is valid."""

    setting: str
    code: str = field(default="key_refused", init=False)


@dataclass(kw_only=True, eq=False)
class OriginalNeeded(SubmitterError):
    """Task {task_id} was not sent: of {parameters} the ledger keeps a digest, not the content.

    Submit the whole request again, under the same idempotency key or task id: it is the same task.
    """

    task_id: str
    parameters: tuple[str, ...]
    code: str = field(default="original_needed", init=False)

    def default_message(self) -> str:
        named = ", ".join(self.parameters)
        return (
            f"Task {self.task_id} was not sent: of {named} the ledger keeps a digest, not the"
            " content. Submit the whole request again, under the same idempotency key or task id:"
            " it is the same task, and is sent once."
        )


@dataclass(kw_only=True, eq=False)
class AmbiguousSubmit(SubmitterError):
    """{platform} may be running task {task_id} ({reason}). Reconcile it before sending again."""

    platform: str
    task_id: str
    reason: str
    code: str = field(default="ambiguous_submit", init=False)


@dataclass(kw_only=True, eq=False)
class WaitTimedOut(SubmitterError):
    """Task {task_id} is not complete after {waited_s:g} s. It goes on: wait again or look later."""

    task_id: str
    waited_s: float
    code: str = field(default="wait_timed_out", init=False)
