"""Floor 2, edges: directories whose entries survive a power cut. The file system only.

To sync a file is not to sync its name: that belongs to the directory, and the directory's own name
to its parent (fsync(2), "Calling fsync() does not necessarily ensure that the entry in the
directory containing the file has also reached disk"). SQLite does it for its own files only.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def make(path: Path) -> None:
    """Make a directory for this user alone, with its parents, all on disk. Raises OSError."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    for folder in missing:
        sync(folder.parent)
    if not missing:
        # Whoever made it may have been killed before the sync. Others' directories may be closed
        # to us, and then there is nothing to sync that we made.
        with contextlib.suppress(OSError):
            sync(path.parent)


def sync(path: Path) -> None:
    """Put a directory's entries on disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
