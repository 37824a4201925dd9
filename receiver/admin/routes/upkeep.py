"""Floor 4, doors: the route that makes a backup. Starlette only."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from receiver.access import ADMINS
from receiver.admin.ops import Ops, Principal
from receiver.admin.routes.answers import shown
from receiver.admin.routes.requests import body_of
from receiver.admin.routes.rows import Row
from receiver.backups import BackupAsked, BackupMade


class UpkeepRoutes:
    """What whoever runs the receiver asks for now and then."""

    def __init__(self, ops: Ops) -> None:
        self._ops = ops

    def table(self) -> Sequence[Row]:
        """Every route."""
        return (
            Row(
                "POST",
                "/v1/backup",
                self._backup,
                ADMINS,
                "Copy everything into the receiver's backup directory",
                body=BackupAsked,
                answers={200: BackupMade},
            ),
        )

    async def _backup(self, who: Principal, request: Request) -> Response:
        asked = await body_of(request, BackupAsked)
        return shown(await self._ops.backup(who, asked))
