"""Every setting, read from a mapping; what is made on loopback, and what is demanded elsewhere."""

from __future__ import annotations

import json
import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from receiver.condition import Origin
from receiver.errors import SettingsRefused
from receiver.settings import (
    LOCAL_FILE,
    Settings,
    check_public_url,
    listed,
    local_keys,
    new_key,
    read_local,
    write_local,
)
from receiver.tokens import TokenBox, webhook_url
from tests.doubles import ADMIN_TOKEN
from tests.make import KEY, OLD_KEY, claims

PUBLIC = {
    "HOST": "0.0.0.0",
    "REELHOOK_PUBLIC_URL": "https://hooks.example.com",
    "REELHOOK_SIGNING_KEYS": KEY,
    "REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN,
}


def read(folder: Path | None = None, **environ: str) -> Settings:
    data = {} if folder is None else {"REELHOOK_DATA_DIR": str(folder)}
    return Settings.read({**data, **environ})


def refusal(environ: dict[str, str]) -> str:
    with pytest.raises(SettingsRefused) as caught:
        Settings.read(environ).completed()
    return str(caught.value)


def test_without_any_setting_the_receiver_is_on_loopback() -> None:
    settings = read()
    assert (settings.host, settings.port, settings.admin_port) == ("127.0.0.1", 8000, None)
    assert settings.on_loopback
    assert settings.database_path == settings.data_dir / "reelhook.db"
    assert settings.data_dir.is_absolute()
    assert (settings.networks, settings.schedule) == ([], None)


def test_an_empty_variable_is_one_that_is_not_set() -> None:
    names = [str(field.validation_alias) for field in Settings.model_fields.values()]
    assert Settings.read(dict.fromkeys(names, "")) == Settings.read({})


def shown(settings: Settings) -> dict[str, tuple[str | None, bool, Origin]]:
    """Each setting's value, whether it is set, and where it comes from."""
    return {one.name: (one.value, one.is_set, one.origin) for one in settings.shown()}


def test_a_setting_says_where_it_comes_from(tmp_path: Path) -> None:
    settings = read(tmp_path, LOG_LEVEL="debug", REELHOOK_ADMIN_TOKEN=ADMIN_TOKEN)
    found = shown(settings.changed(Origin.OPTION, {"port": 0}).completed())
    assert found["REELHOOK_DATA_DIR"] == (str(tmp_path), True, Origin.ENVIRONMENT)
    assert found["LOG_LEVEL"] == ("debug", True, Origin.ENVIRONMENT)
    assert found["LOG_FORMAT"] == ("auto", True, Origin.DEFAULT)
    assert found["PORT"] == ("0", True, Origin.OPTION)
    assert found["REELHOOK_PUBLIC_URL"] == (None, False, Origin.DEFAULT)
    assert found["REELHOOK_ADMIN_TOKEN"] == (None, True, Origin.ENVIRONMENT)
    assert found["REELHOOK_SIGNING_KEYS"] == (None, True, Origin.DATA_DIR)
    assert ADMIN_TOKEN not in str(settings.shown())


def test_a_hosts_own_address_is_told_as_the_hosts() -> None:
    found = shown(Settings.read({"DYNO": "web.1", "PORT": "5000"}))
    assert found["HOST"] == ("0.0.0.0", True, Origin.HOSTING)
    assert found["PORT"] == ("5000", True, Origin.ENVIRONMENT)


def test_every_setting_has_a_variable_and_a_meaning() -> None:
    ours = ("hosting", "origins")
    fields = {name: field for name, field in Settings.model_fields.items() if name not in ours}
    for name, field in fields.items():
        assert str(field.validation_alias).isupper(), name
        assert field.description, name
    assert len({field.validation_alias for field in fields.values()}) == len(fields)


def test_settings_are_read_from_the_mapping_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1234")
    assert read().port == 8000


def test_a_setting_that_can_not_be_read_is_named() -> None:
    for name, value in (
        ("PORT", "http"),
        ("REELHOOK_ADMIN_PORT", "x"),
        ("WEB_CONCURRENCY", "many"),
    ):
        with pytest.raises(SettingsRefused, match=f"^{name}: "):
            Settings.read({name: value})


@pytest.mark.parametrize("port", ["-1", "65536", "70000"])
def test_a_port_is_one_that_can_exist(port: str) -> None:
    with pytest.raises(SettingsRefused, match="PORT"):
        Settings.read({"PORT": port}).completed()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_no_setting(tmp_path: Path, host: str) -> None:
    settings = read(tmp_path, HOST=host).completed()
    assert len(settings.signing_keys) >= 32
    assert len(settings.admin_token) >= 32


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com", "127.1", "0"])
def test_any_other_address_needs_the_three_settings(tmp_path: Path, host: str) -> None:
    environ = {**PUBLIC, "HOST": host, "REELHOOK_DATA_DIR": str(tmp_path)}
    settings = Settings.read(environ).completed()
    assert (settings.signing_keys, settings.admin_token) == (KEY, ADMIN_TOKEN)
    for name in PUBLIC:
        if name == "HOST":
            continue
        told = refusal({key: value for key, value in environ.items() if key != name})
        assert told.startswith(f"{name} is not set and HOST is {host}")
        assert "127.0.0.1" in told
        assert ("reelhook keys new" in told) == (name != "REELHOOK_PUBLIC_URL")
    assert os.listdir(tmp_path) == []


def test_keys_are_made_once_and_kept_for_the_user_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    before = os.umask(0)
    try:
        first, second = read(folder).completed(), read(folder).completed()
    finally:
        os.umask(before)
    assert first == second
    assert (folder / LOCAL_FILE).stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.listdir(folder) == [LOCAL_FILE]
    assert local_keys(folder) == {
        "signing_keys": first.signing_keys,
        "admin_token": first.admin_token,
    }


def test_a_key_that_is_set_wins_over_the_one_that_was_made(tmp_path: Path) -> None:
    made = read(tmp_path).completed()
    settings = read(tmp_path, REELHOOK_SIGNING_KEYS=f"{KEY}, {OLD_KEY}").completed()
    assert listed(settings.signing_keys) == [KEY, OLD_KEY]
    assert settings.admin_token == made.admin_token


def test_what_is_kept_for_the_commands_grows_and_survives_a_broken_file(tmp_path: Path) -> None:
    write_local(tmp_path, url="http://a")
    write_local(tmp_path, public_url="http://b")
    assert read_local(tmp_path) == {"url": "http://a", "public_url": "http://b"}
    for broken in (b"", b"{", b"\xff"):
        (tmp_path / LOCAL_FILE).write_bytes(broken)
        assert read_local(tmp_path) == {}
    assert read_local(tmp_path / "missing") == {}


def test_a_local_file_that_is_no_object_is_none(tmp_path: Path) -> None:
    (tmp_path / LOCAL_FILE).write_text("[]")
    assert read_local(tmp_path) == {}


def test_a_short_key_is_refused_wherever_it_is_from(tmp_path: Path) -> None:
    for environ in ({"REELHOOK_DATA_DIR": str(tmp_path)}, PUBLIC):
        told = refusal({**environ, "REELHOOK_SIGNING_KEYS": f"{KEY},short-one"})
        assert "9 characters" in told
        assert "short-one" not in told


def test_an_admin_token_that_can_be_guessed_is_refused() -> None:
    assert "REELHOOK_ADMIN_TOKEN" in refusal({**PUBLIC, "REELHOOK_ADMIN_TOKEN": "a"})


@pytest.mark.parametrize(
    "variable", ["DYNO", "RENDER", "FLY_APP_NAME", "RAILWAY_ENVIRONMENT", "K_SERVICE"]
)
def test_on_a_hosting_platform_every_interface_is_listened_on(variable: str) -> None:
    hosted = {variable: "x", "PORT": "5000"}
    assert Settings.read(hosted).host == "0.0.0.0"
    assert Settings.read({**hosted, "HOST": "127.0.0.1"}).host == "127.0.0.1"
    assert Settings.read({variable: "x"}).host == "127.0.0.1"
    assert "REELHOOK_PUBLIC_URL" in refusal(hosted)


@pytest.mark.parametrize(("variable", "name"), [("DYNO", "Heroku"), ("K_SERVICE", "Cloud Run")])
def test_sqlite_is_refused_on_a_disk_that_is_wiped(variable: str, name: str) -> None:
    assert name in refusal({**PUBLIC, variable: "x", "PORT": "5000"})


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///here.db", "here.db"),
        ("sqlite:////var/lib/reelhook.db", "/var/lib/reelhook.db"),
        ("sqlite:///a/b c.db", "a/b c.db"),
    ],
)
def test_a_database_url_names_a_file(url: str, path: str) -> None:
    assert Settings.read({"DATABASE_URL": url}).database_path == Path(path)


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///", "sqlite:here.db", "here.db", "postgres://u:p@h/db", "mysql:///x"],
)
def test_another_database_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsRefused, match="sqlite:////path") as caught:
        _ = Settings.read({"DATABASE_URL": url}).database_path
    assert "u:p" not in str(caught.value)


def test_networks_are_read_or_refused() -> None:
    settings = Settings.read({"REELHOOK_ALLOW_NETWORKS": "10.0.0.0/8, fd00::/8,"})
    assert settings.networks == [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    for wrong in ("10.0.0.1/8", "localhost", "x"):
        with pytest.raises(SettingsRefused, match="REELHOOK_ALLOW_NETWORKS"):
            _ = Settings.read({"REELHOOK_ALLOW_NETWORKS": wrong}).networks


def test_a_schedule_is_read_or_refused() -> None:
    assert Settings.read({"REELHOOK_DELIVERY_SCHEDULE": "0, 5,20"}).schedule == (0, 5, 20)
    with pytest.raises(SettingsRefused, match="0,5,20"):
        _ = Settings.read({"REELHOOK_DELIVERY_SCHEDULE": "soon"}).schedule


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "loud"), ("LOG_FORMAT", "xml")])
def test_the_log_is_one_that_exists(tmp_path: Path, name: str, value: str) -> None:
    assert name in refusal({"REELHOOK_DATA_DIR": str(tmp_path), name: value})


@pytest.mark.parametrize("level", ["debug", "INFO", "Warning", "error"])
def test_a_level_may_be_written_in_any_case(tmp_path: Path, level: str) -> None:
    assert read(tmp_path, LOG_LEVEL=level).completed().log_level == level


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://hooks.example.com", "https://hooks.example.com"),
        ("https://hooks.example.com/", "https://hooks.example.com"),
        ("http://127.0.0.1:8000/in/", "http://127.0.0.1:8000/in"),
    ],
)
def test_a_public_url_loses_its_last_slash(url: str, found: str) -> None:
    assert check_public_url(url) == found


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hooks.example.com",
        "ftp://x",
        "https://",
        "https://x/?a=b",
        "https://x/#y",
        "https://u:p@x",
    ],
)
def test_what_is_no_public_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsRefused, match="REELHOOK_PUBLIC_URL") as caught:
        check_public_url(url)
    assert "u:p" not in str(caught.value)


def test_a_webhook_url_that_was_pasted_there_is_told_to_nobody() -> None:
    token = TokenBox([KEY]).mint(claims())
    with pytest.raises(SettingsRefused, match=r"sig=\[redacted\]") as caught:
        check_public_url(webhook_url("https://x", "runware", token, {}))
    assert token not in str(caught.value)


def test_a_public_url_has_a_port_that_can_exist() -> None:
    with pytest.raises(SettingsRefused):
        check_public_url("https://example.com:99999")


def test_a_new_key_is_long_and_new() -> None:
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(len(key) >= 43 and "," not in key for key in keys)


def test_what_is_kept_for_the_commands_is_json(tmp_path: Path) -> None:
    write_local(tmp_path, url='http://"a"')
    assert json.loads((tmp_path / LOCAL_FILE).read_text()) == {"url": 'http://"a"'}
