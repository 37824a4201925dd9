"""Where the submitter finds the platform and the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.settings import write_local
from submitter.environment import LOCAL_URL, RUNWARE, read
from submitter.errors import MissingKey
from submitter.submit import Submitter
from tests.submitter.stage import API_KEY

pytestmark = pytest.mark.anyio


def test_an_empty_environment_means_runware_and_this_machine(tmp_path: Path) -> None:
    found = read({"REELHOOK_DATA_DIR": str(tmp_path)})
    assert (found.base_url, found.ledger_url, found.project) == (RUNWARE, LOCAL_URL, "default")
    assert (found.api_key, found.ledger_token) == ("", "")


def test_a_local_receiver_is_found_by_the_file_that_it_left(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://127.0.0.1:8123", admin_token="a-token", signing_keys="k")
    found = read({"REELHOOK_DATA_DIR": str(tmp_path)})
    assert (found.ledger_url, found.ledger_token) == ("http://127.0.0.1:8123", "a-token")


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://127.0.0.1:8123", admin_token="a-token")
    found = read(
        {
            "REELHOOK_DATA_DIR": str(tmp_path),
            "REELHOOK_URL": "https://hooks.example",
            "REELHOOK_ADMIN_TOKEN": "another",
            "REELHOOK_PROJECT": "films",
            "RUNWARE_API_KEY": API_KEY,
            "RUNWARE_BASE_URL": "http://127.0.0.1:8100",
        }
    )
    assert (found.ledger_url, found.ledger_token) == ("https://hooks.example", "another")
    assert (found.project, found.api_key) == ("films", API_KEY)
    assert found.base_url == "http://127.0.0.1:8100"


def test_an_empty_variable_is_one_that_is_not_set(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://127.0.0.1:8123", admin_token="a-token")
    names = ["REELHOOK_URL", "REELHOOK_ADMIN_TOKEN", "REELHOOK_PROJECT", "RUNWARE_BASE_URL"]
    found = read({"REELHOOK_DATA_DIR": str(tmp_path), **dict.fromkeys(names, "")})
    assert found == read({"REELHOOK_DATA_DIR": str(tmp_path)})
    assert found.ledger_token == "a-token"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"url"', "null"])
def test_a_file_that_is_not_the_receivers_is_not_believed(tmp_path: Path, text: str) -> None:
    tmp_path.joinpath("local.json").write_text(text)
    assert read({"REELHOOK_DATA_DIR": str(tmp_path)}).ledger_url == LOCAL_URL


def test_the_line_break_of_a_secrets_file_is_no_part_of_a_key(tmp_path: Path) -> None:
    environ = {"REELHOOK_DATA_DIR": str(tmp_path), "RUNWARE_API_KEY": f" {API_KEY}\r\n"}
    assert read(environ).api_key == API_KEY


def test_no_secret_is_shown(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://127.0.0.1:8123", admin_token="a-token")
    shown = repr(read({"REELHOOK_DATA_DIR": str(tmp_path), "RUNWARE_API_KEY": API_KEY}))
    assert "8123" in shown
    assert API_KEY not in shown
    assert "a-token" not in shown


@pytest.mark.parametrize("key", ["", " \n"])
async def test_without_a_key_there_is_no_submitter(tmp_path: Path, key: str) -> None:
    with pytest.raises(MissingKey) as caught:
        Submitter.from_env({"REELHOOK_DATA_DIR": str(tmp_path), "RUNWARE_API_KEY": key})
    assert caught.value.setting == "RUNWARE_API_KEY"
    assert caught.value.setting in str(caught.value)
