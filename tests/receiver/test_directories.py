"""A name is on disk only when its directory was synced."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from receiver import directories
from receiver.settings import local_keys


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was synced, in order."""
    found: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        fsync(descriptor)
        found.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))

    monkeypatch.setattr(os, "fsync", note)
    return found


def test_a_new_directory_is_synced_in_its_parent_and_so_are_new_parents(
    tmp_path: Path, synced: list[Path]
) -> None:
    path = tmp_path / "share" / "reelhook"
    directories.make(path)
    assert set(synced) == {tmp_path / "share", tmp_path}
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_directory_that_is_there_may_not_have_been_synced_yet(
    tmp_path: Path, synced: list[Path]
) -> None:
    directories.make(tmp_path)
    assert synced == [tmp_path.parent]


def test_a_file_in_its_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(FileExistsError):
        directories.make(tmp_path / "data")


def test_local_keys_are_on_disk_with_their_name(tmp_path: Path, synced: list[Path]) -> None:
    local_keys(tmp_path / "data")
    draft = synced[-2]
    assert draft.name.startswith("local.json.")
    assert synced[-1] == tmp_path / "data"
