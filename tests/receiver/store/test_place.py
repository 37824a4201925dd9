"""Where a database may lie, and whether there is room."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from receiver.errors import CannotStart, StoreFull
from receiver.store.sqlite import SqliteStore
from receiver.store.sqlite.place import check_place, network_filesystem
from tests.doubles import FakeClock

MOUNTS = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 0:50 / /srv rw,relatime shared:1 - nfs4 filer:/srv rw,vers=4.2
41 40 254:1 / /srv/local rw - xfs /dev/vdb rw
42 27 0:51 / /mnt/two\\040words rw,noatime master:1 propagate_from:2 - cifs //host/share rw
43 27 0:52 / /home/me/remote rw - fuse.sshfs me@host:/ rw
44 27 0:53 / /c rw - 9p C:\\134 rw
45 27 0:54 / /data rw - nfs filer:/data rw
46 27 254:2 / /data rw - ext4 /dev/vdc rw
47 27 254:3 / /cover rw - ext4 /dev/vdd rw
48 27 0:55 / /cover rw - nfs filer:/cover rw
49 27 0:56 / /fuse rw - fuse.ntfs-3g /dev/sdb rw
50 27 0:57 / /ram rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/var/lib/reelhook.db", None),
        ("/srv/reelhook.db", "nfs4"),
        ("/srv", "nfs4"),
        ("/srv/local/reelhook.db", None),
        ("/srvice/reelhook.db", None),
        ("/mnt/two words/a/reelhook.db", "cifs"),
        ("/mnt/two/reelhook.db", None),
        ("/home/me/remote/reelhook.db", "fuse.sshfs"),
        ("/home/me/reelhook.db", None),
        ("/c/Users/me/reelhook.db", "9p"),
        ("/data/reelhook.db", None),  # of two mounts at one place the later one is seen
        ("/cover/reelhook.db", "nfs"),
        ("/fuse/reelhook.db", None),
        ("/ram/reelhook.db", None),
    ],
)
def test_a_network_filesystem_is_known_by_its_mount(path: str, found: str | None) -> None:
    assert network_filesystem(MOUNTS, path) == found


@pytest.mark.parametrize("mounts", ["", "\n", "nonsense", "1 2 3 - nfs", "1 2 3 4 /\\9 rw - nfs x"])
def test_mounts_that_can_not_be_read_refuse_nothing(mounts: str) -> None:
    assert network_filesystem(mounts, "/reelhook.db") is None


def test_a_database_on_a_network_filesystem_is_refused(tmp_path: Path) -> None:
    mounts = f"1 1 0:1 / {tmp_path} rw - nfs4 filer:/ rw\n"
    with pytest.raises(CannotStart, match=r"nfs4.*REELHOOK_DATA_DIR"):
        check_place(tmp_path / "db", mounts)
    assert check_place(tmp_path / "db") == tmp_path / "db"  # by the machine's own mounts


def test_a_link_leads_to_where_the_database_lies(tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.mkdir()
    (tmp_path / "db").symlink_to(remote / "real")
    mounts = f"1 1 0:1 / {remote} rw - cifs //host/share rw\n"
    with pytest.raises(CannotStart, match="cifs"):
        check_place(tmp_path / "db", mounts)
    assert check_place(tmp_path / "db") == remote / "real"


@pytest.mark.anyio
@pytest.mark.parametrize("database", [None, b""])
async def test_a_log_without_its_database_is_refused_untouched(
    tmp_path: Path, database: bytes | None
) -> None:
    path, log = tmp_path / "db", tmp_path / "db-wal"
    log.write_bytes(b"what was acknowledged last")
    if database is not None:
        path.write_bytes(database)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(CannotStart, match="db-wal is there"):
        await SqliteStore.open(path, clock=FakeClock())
    assert log.read_bytes() == b"what was acknowledged last"
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.anyio
async def test_a_directory_in_the_databases_place_is_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("db").mkdir()
    with pytest.raises(CannotStart, match="is a directory"):
        await SqliteStore.open(tmp_path / "db", clock=FakeClock())
    assert os.listdir(tmp_path) == ["db"]


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["/proc/reelhook/db", "/proc/db", "file/db"])
async def test_a_directory_that_can_not_be_written_is_refused(tmp_path: Path, where: str) -> None:
    tmp_path.joinpath("file").write_text("in the way")
    with pytest.raises(CannotStart, match=r"can't be written.*REELHOOK_DATA_DIR"):
        await SqliteStore.open(tmp_path / where, clock=FakeClock())
    assert tmp_path.joinpath("file").read_text() == "in the way"


@pytest.mark.anyio
async def test_a_database_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
        connection.execute("PRAGMA user_version = 1")
        connection.commit()
    before = path.read_bytes()
    with pytest.raises(CannotStart, match="another program"):
        await SqliteStore.open(path, clock=FakeClock())
    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_a_database_that_was_cut_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=FakeClock()):
        pass
    os.truncate(path, path.stat().st_size - 4_096)
    before = path.read_bytes()
    with pytest.raises(CannotStart, match=r"malformed.*backup"):
        await SqliteStore.open(path, clock=FakeClock())
    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_a_database_that_somebody_holds_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=FakeClock()):
        pass
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CannotStart, match=r"locked.*Another program"):
            await SqliteStore.open(path, clock=FakeClock())
        other.execute("ROLLBACK")


@pytest.mark.anyio
async def test_what_a_crash_left_in_the_log_is_in_the_database_before_anyone_is_answered(
    tmp_path: Path,
) -> None:
    # A commit that no fsync confirmed may show in the log; a duplicate of it must not be promised.
    path = tmp_path / "db"
    async with await SqliteStore.open(path, clock=FakeClock()) as store:
        await store.ready()
        for name in ("db", "db-wal"):
            tmp_path.joinpath(f"crashed-{name}").write_bytes(tmp_path.joinpath(name).read_bytes())
    crashed = tmp_path / "crashed-db"
    assert tmp_path.joinpath("crashed-db-wal").stat().st_size
    async with await SqliteStore.open(crashed, clock=FakeClock()):
        assert not tmp_path.joinpath("crashed-db-wal").stat().st_size


@pytest.mark.anyio
async def test_callbacks_are_refused_before_the_disk_is_full(tmp_path: Path) -> None:
    everything = os.statvfs(tmp_path).f_blocks * os.statvfs(tmp_path).f_frsize
    store = await SqliteStore.open(tmp_path / "db", clock=FakeClock(), least_free=2 * everything)
    async with store:
        with pytest.raises(StoreFull, match="MiB") as caught:
            store.admit()
        with pytest.raises(StoreFull):
            await store.ready()
    assert caught.value.evidence["free"] <= everything
