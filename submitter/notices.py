"""Floor 2, edges: what `reelhook dev` tells as it happens; `text` is the sentence for a person."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from submitter.tunnel import Kind, Unreachable


@dataclass(frozen=True, slots=True)
class LoopbackOnly:
    """There is no public URL."""

    url: str

    @property
    def text(self) -> str:
        return (
            f"Only this machine can reach {self.url}: the simulator can, a platform can't. "
            "Add --tunnel, or set REELHOOK_PUBLIC_URL to a URL that leads here."
        )


@dataclass(frozen=True, slots=True)
class TunnelOpened:
    """The tunnel gave its URL."""

    kind: Kind
    url: str
    pid: int

    @property
    def text(self) -> str:
        return f"{self.kind} serves {self.url}."


@dataclass(frozen=True, slots=True)
class TunnelLost:
    """The tunnel ended, or did not open again."""

    kind: Kind
    reason: str
    retry_in_s: float

    @property
    def text(self) -> str:
        return (
            f"The tunnel through {self.kind} is down. {self.reason} "
            f"It is opened again in {self.retry_in_s:g} s; until then no callback arrives."
        )


@dataclass(frozen=True, slots=True)
class UrlChanged:
    """The tunnel came back with another URL."""

    old: str
    new: str

    @property
    def text(self) -> str:
        return (
            f"The public URL is now {self.new}. Tasks submitted before carry {self.old}: their "
            "callbacks can't arrive any more, and they are reconciled by polling."
        )


@dataclass(frozen=True, slots=True)
class ReceiverSays:
    """A line of the receiver's own, for people."""

    text: str


@dataclass(frozen=True, slots=True)
class ReceiverLost:
    """The receiver ended by itself."""

    reason: str
    retry_in_s: float

    @property
    def text(self) -> str:
        return f"{self.reason} It is started again in {self.retry_in_s:g} s."


@dataclass(frozen=True, slots=True)
class ReconcilerSays:
    """A line of the reconciler's own, for people."""

    line: str

    @property
    def text(self) -> str:
        return f"Reconciler: {self.line}"


@dataclass(frozen=True, slots=True)
class ReconcilerLost:
    """The reconciler ended by itself."""

    reason: str
    retry_in_s: float

    @property
    def text(self) -> str:
        return f"{self.reason} It is started again in {self.retry_in_s:g} s."


@dataclass(frozen=True, slots=True)
class Checking:
    """The public URL is asked whether it leads here."""

    url: str

    @property
    def text(self) -> str:
        return f"Waiting until {self.url} answers from outside."


@dataclass(frozen=True, slots=True)
class NotReached:
    """The public URL does not lead here (yet); it is asked again."""

    problem: Unreachable

    @property
    def text(self) -> str:
        return self.problem.text


@dataclass(frozen=True, slots=True)
class Ready:
    """Callbacks can come in."""

    url: str
    admin_url: str
    public_url: str
    instance: str
    tunnel: Kind | None

    @property
    def text(self) -> str:
        return f"Ready: callbacks arrive at {self.public_url}; the API is at {self.admin_url}."

    def as_json(self) -> dict[str, Any]:
        """The line for programs."""
        return {"event": "ready", **asdict(self)}


@dataclass(frozen=True, slots=True)
class Stopping:
    """A signal ends it."""

    signal: int

    @property
    def text(self) -> str:
        return "Stopping."


@dataclass(frozen=True, slots=True)
class GaveUp:
    """It can't go on."""

    text: str


Event = (
    LoopbackOnly
    | TunnelOpened
    | TunnelLost
    | UrlChanged
    | ReceiverSays
    | ReceiverLost
    | ReconcilerSays
    | ReconcilerLost
    | Checking
    | NotReached
    | Ready
    | Stopping
    | GaveUp
)
Notify = Callable[[Event], None]
