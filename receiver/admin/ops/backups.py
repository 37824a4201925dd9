"""Floor 3, flows: a backup of everything, by hand or by a timer. The store's protocol."""

from __future__ import annotations

from receiver.access import Action
from receiver.admin.ops.asking import Principal
from receiver.admin.ops.figures import FigureOps
from receiver.backups import BackupAsked, BackupMade


class BackupOps(FigureOps):
    """What keeps a disk's end from being the end of what was kept on it."""

    async def backup(self, who: Principal, asked: BackupAsked) -> BackupMade:
        """Copy everything into the directory for it. Raises Conflict, BackupElsewhere."""
        who.of_all("A backup")
        made = await self.store.backup(self._running.backups, asked.keep)
        about = made.model_dump(include={"path", "bytes", "sha256", "dropped"})
        await self.store.note(self._deed(who, Action.BACKUP, **about))
        return made
