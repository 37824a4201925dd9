"""Floor 2, edges: the feed out of its two tables, a bounded page at a time. stdlib only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from receiver import ids
from receiver.feed import Place, Told
from receiver.store.verbs.reads import Reads
from receiver.store.verbs.rows import Row

MOST: Final = 100  # of a page
MOST_BYTES: Final = 1 << 20  # of its payloads, but for the first one

# Both halves are in the order of their index, so that a page costs what it holds. Payloads are read
# last: the sizes of blobs are known without them.
_TOLD: Final = """
WITH told AS (
    SELECT * FROM (SELECT seq AS at_seq, CAST(0 AS BIGINT) AS at_n, id AS event_id,
                          CAST(NULL AS BIGINT) AS resent_at
                   FROM events WHERE seq > ?1 ORDER BY seq LIMIT ?3) made
    UNION ALL
    SELECT * FROM (SELECT after_seq, n, event_id, at
                   FROM resends WHERE (after_seq, n) > (?1, ?2) ORDER BY after_seq, n LIMIT ?3) re
    ORDER BY at_seq, at_n LIMIT ?3
), sized AS (
    SELECT told.*, sum(length(e.payload)) OVER (ORDER BY at_seq, at_n) - length(e.payload) AS before
    FROM told JOIN events e ON e.id = told.event_id
)
SELECT at_seq, at_n, resent_at, t.id AS task,
       e.id, e.seq, e.type, e.project, e.created_at, e.payload
FROM sized JOIN events e ON e.id = sized.event_id LEFT JOIN tasks t ON t.n = e.task_n
WHERE before < ?4 ORDER BY at_seq, at_n
"""
_NEWEST: Final = (
    "SELECT coalesce(max(seq), 0), coalesce((SELECT max(n) FROM resends"
    " WHERE after_seq = (SELECT max(seq) FROM events)), 0) FROM events"
)


class Feed:
    """A part of SqlStore."""

    _reads: Reads

    async def told(self, after: Place) -> Sequence[Told]:
        """What the feed has behind a place, the oldest first; a page of it."""
        values = (after.seq, after.resend, MOST, MOST_BYTES)
        return [_told_of(row) for row in await self._reads.rows(_TOLD, values)]

    async def newest_place(self) -> Place:
        """Where the feed ends."""
        ((seq, resend),) = await self._reads.rows(_NEWEST)
        return Place(seq, resend)


def _told_of(row: Row) -> Told:
    return Told(
        place=Place(row["at_seq"], row["at_n"]),
        id=ids.EVENT + ids.encode(row["id"]),
        seq=row["seq"],
        type=row["type"],
        task_id=None if row["task"] is None else ids.task_text(row["task"]),
        project=row["project"],
        created_at=row["created_at"],
        resent_at=row["resent_at"],
        payload=row["payload"],
    )
