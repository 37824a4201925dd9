"""Where the submitter finds the platform and the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from receiver.settings import write_local
from submitter.environment import LOCAL_URL, read
from submitter.errors import MissingKey
from submitter.platforms.catalogue import SHIPPED, account, base_url_in, key_in
from submitter.submit import Submitter
from tests.submitter.stage import API_KEY

pytestmark = pytest.mark.anyio


NAMES = {
    "runware": ("RUNWARE_API_KEY", "RUNWARE_BASE_URL", "https://api.runware.ai/v1"),
    "nanogpt": ("NANOGPT_API_KEY", "NANOGPT_BASE_URL", "https://nano-gpt.com/api"),
}


def test_an_empty_environment_means_this_machine(tmp_path: Path) -> None:
    found = read({"REELHOOK_DATA_DIR": str(tmp_path)})
    assert (found.ledger_url, found.project, found.ledger_token) == (LOCAL_URL, "default", "")


@pytest.mark.parametrize("name", SHIPPED)
def test_an_empty_environment_has_no_account_anywhere(name: str) -> None:
    _, base_setting, base_url = NAMES[name]
    assert (key_in({}, name), base_url_in({}, name)) == ("", base_url)
    assert base_url_in({base_setting: ""}, name) == base_url


@pytest.mark.parametrize("name", SHIPPED)
async def test_an_account_is_where_its_variables_say(name: str) -> None:
    setting, base_setting, _ = NAMES[name]
    environ = {setting: f" {API_KEY}\r\n", base_setting: "http://127.0.0.1:8100"}
    assert key_in(environ, name) == API_KEY  # the line break of a secrets file is no part of it
    found = account(environ, name)
    assert (found.name, found.is_local) == (name, True)
    assert API_KEY not in repr(found)
    await found.aclose()


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
        }
    )
    assert (found.ledger_url, found.ledger_token) == ("https://hooks.example", "another")
    assert found.project == "films"


def test_an_empty_variable_is_one_that_is_not_set(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://127.0.0.1:8123", admin_token="a-token")
    names = ["REELHOOK_URL", "REELHOOK_ADMIN_TOKEN", "REELHOOK_PROJECT"]
    found = read({"REELHOOK_DATA_DIR": str(tmp_path), **dict.fromkeys(names, "")})
    assert found == read({"REELHOOK_DATA_DIR": str(tmp_path)})
    assert found.ledger_token == "a-token"


@pytest.mark.parametrize("text", ["", "{", "[1]", '"url"', "null"])
def test_a_file_that_is_not_the_receivers_is_not_believed(tmp_path: Path, text: str) -> None:
    tmp_path.joinpath("local.json").write_text(text)
    assert read({"REELHOOK_DATA_DIR": str(tmp_path)}).ledger_url == LOCAL_URL


def test_no_secret_is_shown(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://127.0.0.1:8123", admin_token="a-token")
    shown = repr(read({"REELHOOK_DATA_DIR": str(tmp_path), "RUNWARE_API_KEY": API_KEY}))
    assert "8123" in shown
    assert API_KEY not in shown
    assert "a-token" not in shown


@pytest.mark.parametrize("key", ["", " \n"])
@pytest.mark.parametrize("name", SHIPPED)
async def test_without_a_key_there_is_no_submitter(tmp_path: Path, name: str, key: str) -> None:
    environ = {"REELHOOK_DATA_DIR": str(tmp_path), NAMES[name][0]: key}
    with pytest.raises(MissingKey) as caught:
        Submitter.from_env(environ, platform=name)
    assert caught.value.setting == NAMES[name][0]
    assert caught.value.setting in str(caught.value)
