"""Floor 4, doors: the dashboard's pages of what came in: the list, one with its bytes. Starlette.

A body is a stranger's: it is shown as text, and its exact bytes are a download that nothing runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from starlette.responses import Response

from receiver.admin.dashboard.pages import PageRow, Visit
from receiver.admin.ops import Ops
from receiver.callbacks import Outcome, Reprocess

BODY: Final = 200_000  # characters of a body that a page shows
TABS: Final = (
    Outcome.RECORDED,
    Outcome.CONFLICT,
    Outcome.QUARANTINED,
    Outcome.EXPIRED,
    Outcome.DUPLICATE,
    Outcome.PROGRESS,
)
# What may be dropped by hand: nothing hangs on it.
DROPPABLE: Final = frozenset({Outcome.QUARANTINED, Outcome.EXPIRED})


class CallbackPages:
    """Inbound requests, the odd ones too."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[PageRow]:
        """Its pages and forms."""
        return (
            PageRow("GET", "/callbacks", self._callbacks, "/v1/callbacks"),
            PageRow("GET", "/callbacks/{id}", self._callback, "/v1/callbacks/{id}"),
            PageRow("POST", "/callbacks/{id}/reprocess", self._reprocess),
            PageRow("POST", "/callbacks/{id}/delete", self._delete),
        )

    async def _callbacks(self, visit: Visit) -> Response:
        page = await self._ops.callbacks(visit.who, visit.query)
        return visit.show("callbacks.html", page=page, tabs=TABS)

    async def _callback(self, visit: Visit) -> Response:
        callback = await self._ops.callback(visit.who, visit.id())
        body = callback.body or ""
        return visit.show(
            "callback.html",
            callback=callback,
            body=body[:BODY],
            more=max(len(body) - BODY, 0),
            may_drop=callback.outcome in DROPPABLE,
        )

    async def _reprocess(self, visit: Visit) -> Response:
        dry_run = visit.form.get("dry_run") == "true"
        found = await self._ops.reprocess(visit.who, visit.id(), Reprocess(dry_run=dry_run))
        results = f"{found.results} new result{'' if found.results == 1 else 's'}"
        if dry_run:
            notice = f"Taken again it would be {found.status.value}, with {results}."
        else:
            notice = f"Taken again it is {found.status.value}, with {results}."
        return visit.go(f"/callbacks/{found.id}", notice)

    async def _delete(self, visit: Visit) -> Response:
        await self._ops.delete_callback(visit.who, visit.id())
        return visit.go("/callbacks", "The callback is gone.")
