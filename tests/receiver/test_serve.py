"""Where a receiver leaves its address, and what it says when it can't."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from receiver.serve import Listening, announce
from receiver.settings import Settings

ADDRESS = Listening(
    [], "http://127.0.0.1:8000", "http://127.0.0.1:8001", "https://hooks.example.com"
)


def settings(folder: Path, host: str) -> Settings:
    return Settings.read({"REELHOOK_DATA_DIR": str(folder), "HOST": host})


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_address_of_the_api_is_left_in_the_data_directory(tmp_path: Path, host: str) -> None:
    announce(settings(tmp_path, host))(ADDRESS, "an-instance")
    kept = tmp_path / "local.json"
    assert json.loads(kept.read_text()) == {
        "url": "http://127.0.0.1:8001",
        "public_url": "https://hooks.example.com",
    }
    assert kept.stat().st_mode & 0o777 == 0o600


def test_a_data_directory_that_can_not_be_written_to_stops_nobody(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    announce(settings(tmp_path / "file" / "data", "0.0.0.0"))(ADDRESS, "an-instance")
    said = capfd.readouterr()
    assert json.loads(said.out)["event"] == "ready"
    assert "REELHOOK_URL=http://127.0.0.1:8001" in said.err
