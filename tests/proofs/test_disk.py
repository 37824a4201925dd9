"""The disk that has lost power must have lost what no sync covered, or the proof is blind."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from scripts.proofs.disk import SECTOR, Disk, Kept
from scripts.proofs.trace import (
    Acknowledged,
    Cut,
    Entered,
    Left,
    Reader,
    Renamed,
    Step,
    SyncBegan,
    SyncEnded,
    Unexplained,
    Wrote,
)

MADE = (Entered("/r", "data", None), SyncBegan("/r", 1), SyncEnded("/r", 1))
FILE = (Entered("/r/data", "db", 1), SyncBegan("/r/data", 1), SyncEnded("/r/data", 1))
SYNCED = (SyncBegan(1, 1), SyncEnded(1, 1))


def image(*steps: Step, kept: Kept = Kept.NOTHING, seed: int = 0) -> dict[str, bytes]:
    disk = Disk("/r")
    for step in steps:
        disk.follow(step)
    return disk.image(kept, Random(seed))


def test_what_a_sync_covered_is_there_and_the_rest_is_not() -> None:
    steps = (*MADE, *FILE, Wrote(1, 0, b"abc"), *SYNCED, Wrote(1, 1, b"XYZ"))
    assert image(*steps) == {"data/db": b"abc"}
    assert image(*steps, kept=Kept.ALL) == {"data/db": b"aXYZ"}


def test_a_sync_covers_only_what_was_done_before_it_began() -> None:
    steps = (*MADE, *FILE, Wrote(1, 0, b"abc"), SyncBegan(1, 1), Wrote(1, 0, b"X"), SyncEnded(1, 1))
    assert image(*steps) == {"data/db": b"abc"}
    assert image(*MADE, *FILE, Wrote(1, 0, b"abc"), SyncBegan(1, 1)) == {"data/db": b""}


def test_a_name_is_there_once_its_directory_was_synced_and_its_directorys_name() -> None:
    whole = (Wrote(1, 0, b"abc"), *SYNCED)
    assert image(*MADE, FILE[0], *whole) == {}
    assert image(MADE[0], *FILE, *whole) == {}
    assert image(*MADE, *FILE, *whole) == {"data/db": b"abc"}


def test_a_rename_and_a_removal_wait_for_the_directory() -> None:
    before = (*MADE, *FILE, Wrote(1, 0, b"abc"), *SYNCED)
    renamed, left = Renamed(("/r/data", "db"), ("/r/data", "new"), 1), Left("/r/data", "db")
    assert image(*before, renamed) == {"data/db": b"abc"}
    assert image(*before, renamed, *FILE[1:]) == {"data/new": b"abc"}
    assert image(*before, left) == {"data/db": b"abc"}
    assert image(*before, left, *FILE[1:]) == {}


def test_a_new_size_is_a_change_like_a_write() -> None:
    steps = (*MADE, *FILE, Wrote(1, 0, b"abc"), *SYNCED, Cut(1, 1))
    assert image(*steps) == {"data/db": b"abc"}
    assert image(*steps, *SYNCED) == {"data/db": b"a"}
    assert image(*steps, Cut(1, 2), kept=Kept.ALL) == {"data/db": b"a\0"}


def test_some_unsynced_writes_survive_without_others_and_in_sectors() -> None:
    first, second = b"1" * 2 * SECTOR, b"2" * 2 * SECTOR
    steps = (*MADE, *FILE, Wrote(1, 0, first), Wrote(1, 2 * SECTOR, second))
    some = {image(*steps, kept=Kept.SOME, seed=seed).get("data/db") for seed in range(50)}
    assert some >= {b"", first, bytes(2 * SECTOR) + second, first + second}
    torn = {image(*steps, kept=Kept.TORN, seed=seed).get("data/db") for seed in range(200)}
    assert bytes(SECTOR) + b"1" * SECTOR in torn


def hexed(text: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text)


def log_of(tmp_path: Path, *lines: str) -> list[Step]:
    log = tmp_path / "strace.log"
    log.write_text("".join(f"{line}\n" for line in lines))
    return list(Reader("/r", names={"/r/data": None}).read(log))


DB = f"7<{hexed(b'/r/data/db')}>"
OPENED = f'1 openat(AT_FDCWD</>, "{hexed(b"/r/data/db")}", O_RDWR|O_CREAT, 0600) = {DB}'


def test_the_log_is_read_in_the_order_in_which_things_held(tmp_path: Path) -> None:
    ok = hexed(b"HTTP/1.1 200 OK\r\n")
    refused = hexed(b"HTTP/1.1 503 Busy\r\n")
    peer = "9<TCP:[127.0.0.1:80->127.0.0.1:50001]>"
    assert log_of(
        tmp_path,
        OPENED,
        f'1 pwrite64({DB}, "{hexed(b"ab")}", 2, 4096 <unfinished ...>',
        f'2 write({peer}, "{ok}", 17 <unfinished ...>',
        "1 <... pwrite64 resumed>)           = 2",
        f"1 fdatasync({DB} <unfinished ...>",
        f'2 write({peer}, "{refused}", 19) = 19',
        f"3 ftruncate({DB}, 0) = -1 EIO (Input/output error)",
        "1 <... fdatasync resumed>)          = 0",
        f"1 close({DB}) = 0",
        f'1 pwrite64({DB}, "{hexed(b"cd")}", 2, 0) = 2',
    ) == [
        Entered("/r/data", "db", 1),
        Acknowledged(50_001),
        Wrote(1, 4096, b"ab"),
        SyncBegan(1, 1),
        SyncEnded(1, 1),
    ]


@pytest.mark.parametrize(
    "line",
    [
        f"1 fallocate({DB}, 0, 0, 4096) = 0",
        f'1 pwritev({DB}, [{{iov_base="{hexed(b"ab")}", iov_len=2}}], 1, 0) = 2',
        f'1 pwrite64({DB}, "{hexed(b"ab")}"..., 9, 0) = 9',
        f'1 link("{hexed(b"/r/data/db")}", "{hexed(b"/r/data/other")}") = 0',
    ],
)
def test_what_the_reader_does_not_know_is_not_passed_over(line: str, tmp_path: Path) -> None:
    with pytest.raises(Unexplained):
        log_of(tmp_path, OPENED, line)
