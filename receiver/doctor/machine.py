"""Floor 5, assembly: what the doctor sees on this machine: settings, keys, files, ports.

Nothing is changed: no key is made, no database opened, and a port that is tried is let go.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from receiver.doctor.findings import Finding, error, ok, warning
from receiver.errors import CannotStart, ReelhookError
from receiver.outside import Seen
from receiver.server import listen
from receiver.settings import (
    EPHEMERAL,
    LOCAL_FILE,
    Settings,
    check_log,
    check_public_url,
    listed,
    read_local,
)
from receiver.store.migrate import APPLICATION_ID, ENGINE, VERSION, migrations
from receiver.store.seal import Seal
from receiver.store.sqlite.place import LEAST_FREE, check_place, filesystem
from receiver.tokens import check_keys

LITTLE_ROOM: Final = 1 << 30  # bytes
MANY_MAY_CHECKPOINT: Final = (3, 51, 3)  # sqlite.org/wal.html, "the WAL-reset bug"
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
_OF_A_CONTAINER: Final = frozenset({"overlay", "aufs"})


def _refusals(checks: Iterable[Callable[[], object]]) -> Iterator[str]:
    for check in checks:
        try:
            check()
        except ReelhookError as refused:
            yield str(refused)


def settings_read(settings: Settings) -> Iterator[Finding]:
    """Settings that `serve` would refuse, all of them."""
    wrong = _refusals(
        (
            lambda: check_log(settings),
            lambda: settings.networks,
            lambda: settings.schedule,
            lambda: None if settings.on_postgres else settings.database_path,
            lambda: settings.public_url and check_public_url(settings.public_url),
            lambda: None if settings.on_loopback else settings.check_public(),
        )
    )
    found = [
        error("settings", text, "Correct it; `reelhook serve` refuses it too.") for text in wrong
    ]
    if not found and settings.web_concurrency > 1:
        text = f"WEB_CONCURRENCY is {settings.web_concurrency}; `reelhook serve` is one process."
        fix = "Unset it; for more, run `reelhook serve` more often, on PostgreSQL."
        found.append(warning("settings", text, fix))
    yield from found or [ok("settings", "They can be read and fit together.")]


def keys(settings: Settings) -> Iterator[Finding]:
    """Keys that are missing, short or of no use."""
    local = read_local(settings.data_dir)
    signing = listed(settings.signing_keys or local.get("signing_keys", ""))
    wrong = [*_refusals((lambda: Seal(listed(settings.encryption_keys)),))]
    if signing:
        wrong += _refusals((lambda: check_keys(signing),))
    if wrong:
        yield from (error("keys", text, "Make one with `reelhook keys new`.") for text in wrong)
        return
    if settings.static_keys:
        text = "REELHOOK_STATIC_KEYS lets URLs in that expire never and name no task."
        yield warning("keys", text, "Unset it, unless URLs with ?apiKey= are pasted somewhere.")
    if not settings.encryption_keys and not settings.on_loopback:
        text = "Endpoints' secrets lie in the database as they are."
        yield warning("keys", text, "Set REELHOOK_ENCRYPTION_KEYS: `reelhook keys new` makes one.")
    if not signing and settings.on_loopback:
        yield ok("keys", "The first `reelhook serve` makes them.")
    elif signing:
        many = "One signs" if len(signing) == 1 else f"The first of {len(signing)} signs"
        yield ok("keys", f"{many}, and all verify.")


def data_directory(path: Path) -> Iterator[Finding]:
    """Whether the directory can be used, and by nobody else."""
    if not path.exists():
        yield ok("data directory", f"{path} is made at the first start.")
        return
    if not os.access(path, os.W_OK | os.X_OK):
        text = f"{path} can't be written by this user."
        yield error("data directory", text, "Set REELHOOK_DATA_DIR to one that can.")
        return
    loose = [*_readable_by_others(path)]
    yield from loose
    if not loose:
        yield ok("data directory", f"{path} is this user's alone.")


def _readable_by_others(path: Path) -> Iterator[Finding]:
    local = path / LOCAL_FILE
    if local.exists() and stat.S_IMODE(local.stat().st_mode) & 0o077:
        text = f"Others can read {local}, which holds keys."
        fix = f"chmod 600 {local}; then make new keys: who read them can sign."
        yield error("data directory", text, fix)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o022:
        yield error("data directory", f"Others can write to {path}.", f"chmod 700 {path}")
    elif mode & 0o055:
        text = f"Others can look into {path}, where the database lies."
        yield warning("data directory", text, f"chmod 700 {path}")


def database(settings: Settings, mounts: str) -> Iterator[Finding]:
    """Where the database lies, how much room it has, and which release wrote it."""
    try:
        path = check_place(settings.database_path, mounts)
    except CannotStart as refused:
        yield error("database", str(refused), "Nothing starts before that.")
        return
    yield from _disk(settings, path, mounts)
    yield from _schema(path)
    yield from _litestream(path, VERSION)


def _disk(settings: Settings, path: Path, mounts: str) -> Iterator[Finding]:
    kind = filesystem(mounts, str(path))
    stays = "Put it on a disk that stays, with REELHOOK_DATA_DIR."
    if settings.hosting in EPHEMERAL:
        text = f"{EPHEMERAL[settings.hosting]} wipes this disk at every restart."
        yield error("disk", text, stays)
    elif kind in _IN_MEMORY:
        yield error("disk", f"{path} lies in memory ({kind}): a restart forgets it.", stays)
    elif kind in _OF_A_CONTAINER:
        text = f"{path} lies in the container itself ({kind}), and is gone when that is replaced."
        yield warning("disk", text, f"Mount a volume there. {stays}")
    else:
        yield ok("disk", f"It is a disk that stays{f' ({kind})' if kind else ''}.")
    folder = next(one for one in path.parents if one.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free >> 20:,} MiB are free for {path}."
    if free < LEAST_FREE:
        yield error(
            "disk", f"{text} No callback is taken in below {LEAST_FREE >> 20}.", "Make room."
        )
    elif free < LITTLE_ROOM:
        yield warning("disk", text, "Make room, or shorten REELHOOK_RETENTION_RAW.")


def _schema(path: Path) -> Iterator[Finding]:
    newest = migrations()[-1][0]
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        yield ok("database", f"{path} is made at the first start, by {ENGINE}.")
        return
    except OSError as fault:
        text = f"{path} can't be read: {fault.strerror}."
        yield error("database", text, "Give it to the user who runs the receiver.")
        return
    # https://sqlite.org/fileformat.html §1.3: as bytes, since opening it would write beside it.
    version, owner = (int.from_bytes(head[at : at + 4], "big") for at in (60, 68))
    if not head.startswith(b"SQLite format 3\0") or owner not in (0, APPLICATION_ID):
        text = f"{path} is no database of Reelhook."
        yield error("database", text, "Name another file in DATABASE_URL.")
    elif version > newest:
        text = f"{path} has schema {version}, this release knows {newest}."
        yield error("database", text, "Install the release that wrote it, or restore a backup.")
    else:
        behind = "" if version == newest else f"; `reelhook serve` brings it to {newest}"
        yield ok("database", f"{ENGINE}, schema {version}{behind}.")


def _litestream(path: Path, version: tuple[int, ...]) -> Iterator[Finding]:
    state = path.with_name(f".{path.name}-litestream")
    if state.is_dir() and version < MANY_MAY_CHECKPOINT:
        text = f"{state} is there. Two programs that bring the log home can damage a database with"
        since = ".".join(map(str, MANY_MAY_CHECKPOINT))
        yield warning(
            "Litestream",
            f"{text} {ENGINE}; that takes {since} or newer.",
            "Use a newer SQLite, or `reelhook backup`: docs/backup.md. If Litestream is gone for"
            " good, remove its folder.",
        )


def port(settings: Settings, api: Seen) -> Iterator[Finding]:
    """Whether the receiver could listen where it is told to."""
    wanted = [(settings.host, settings.port)]
    if settings.admin_port is not None:
        wanted.append(("127.0.0.1", settings.admin_port))
    for host, number in wanted:
        yield _can_listen(host, number, api)


def _can_listen(host: str, number: int, api: Seen) -> Finding:
    if number == 0:
        return ok("port", "A free one is taken.")
    try:
        listen(host, number).close()
    except OSError as fault:
        if api.is_receiver:
            return ok("port", f"A receiver serves; {api.url} answers.")
        text = f"Can't listen on {host}:{number}: {fault.strerror}."
        return error("port", text, "Set PORT to a free one, or stop what uses it.")
    return ok("port", f"{host}:{number} is free.")
