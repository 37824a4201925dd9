"""Floor 2, edges: a task's signed webhookURL, minted here when no ledger does it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from receiver.tokens import Claims, Source, TokenBox, default_expiry, digest_tags, webhook_url
from submitter.tasks import GenerationTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Minter:
    """Signs URLs with the receiver's own keys (newest first). `clock` in milliseconds."""

    public_url: str
    keys: Sequence[str]
    project: str
    clock: Callable[[], int]
    random_bytes: Callable[[int], bytes]

    def __repr__(self) -> str:
        return f"Minter(public_url={self.public_url!r})"

    def url_for(self, task: GenerationTask, source: Source = Source.CALLBACK) -> str:
        """The URL that whoever reports on the task posts to; `source` says who that is."""
        now = self.clock()
        claims = Claims(
            jti=self.random_bytes(16),
            task=task.id,
            platform=task.platform,
            project=self.project,
            expected=task.number_results,
            source=source,
            issued_at=now,
            expires_at=default_expiry(now, None),
            tags=digest_tags(task.tags.items()),
        )
        token = TokenBox(self.keys).mint(claims)
        return webhook_url(self.public_url, task.platform, token, task.tags)
