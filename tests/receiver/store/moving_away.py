"""A process that moves a store in small batches, says each, and waits for a line. To be killed."""

from __future__ import annotations

import sys
from pathlib import Path

from receiver.store.moving import source
from receiver.store.moving.move import move
from tests.doubles import START


def main(path: Path, url: str, rows: int) -> None:
    source.ROWS = rows  # type: ignore[misc]

    def told(table: str, _rows: int) -> None:
        sys.stdout.write(f"{table}\n")
        sys.stdout.flush()
        sys.stdin.readline()

    move(path, url, now=START, told=told)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
