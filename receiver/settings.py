"""Floor 5, assembly: every setting, read once from a mapping. pydantic only.

docs/settings.md is the table; a test holds the two together.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import SplitResult, urlsplit

from platformdirs import user_data_path
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from receiver import directories
from receiver.condition import Origin, Setting
from receiver.errors import SettingsRefused
from receiver.shown import redact
from receiver.tokens import check_keys

LOCAL_FILE: Final = "local.json"
MIN_ADMIN_TOKEN: Final = 20  # characters

# Where a platform sets PORT, only its router can reach the process, on every interface of it.
_HOSTED: Final = ("DYNO", "RENDER", "FLY_APP_NAME", "RAILWAY_ENVIRONMENT", "K_SERVICE")
EPHEMERAL: Final = {"DYNO": "Heroku", "K_SERVICE": "Cloud Run"}
_LOOPBACK_NAMES: Final = frozenset({"localhost", "localhost.localdomain"})


Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3_600, allow_inf_nan=False)]
Deadline = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]
Days = Annotated[int, Field(ge=0, le=36_500)]


def _env(name: str, default: Any, meaning: str, *, shown: bool = True) -> Any:
    return Field(default=default, validation_alias=name, description=meaning, repr=shown)


def _secret(name: str, meaning: str) -> Any:
    return _env(name, "", meaning, shown=False)


class Settings(BaseModel):
    """What the environment says. Attribute names are ours, aliases are the variables."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    host: str = _env("HOST", "127.0.0.1", "Address to listen on; hosting platforms: 0.0.0.0.")
    port: Port = _env("PORT", 8000, "Port to listen on; 0 takes a free one.")
    admin_port: Port | None = _env(
        "REELHOOK_ADMIN_PORT", None, "A second port for all but the public routes."
    )
    database_url: str = _secret(
        "DATABASE_URL",
        "`sqlite:///path` or `postgresql://…`; default: reelhook.db in the data directory.",
    )
    data_dir: Path = _env(
        "REELHOOK_DATA_DIR", user_data_path("reelhook"), "Where the database and local keys live."
    )
    backup_dir: Path | None = _env(
        "REELHOOK_BACKUP_DIR", None, "Where backups go; default: `backups` in the data directory."
    )
    public_url: str = _env(
        "REELHOOK_PUBLIC_URL", "", "What platforms call: https, without a trailing slash."
    )
    signing_keys: str = _secret(
        "REELHOOK_SIGNING_KEYS", "Comma-separated, newest first; each signs webhook URLs."
    )
    admin_token: str = _secret("REELHOOK_ADMIN_TOKEN", "Bearer token for everything under /v1.")
    static_keys: str = _secret(
        "REELHOOK_STATIC_KEYS", "Comma-separated keys for `?apiKey=` URLs; empty: refused."
    )
    encryption_keys: str = _secret(
        "REELHOOK_ENCRYPTION_KEYS",
        "Comma-separated, newest first; seal endpoints' secrets and header values in the database.",
    )
    allow_networks: str = _env(
        "REELHOOK_ALLOW_NETWORKS", "", "Comma-separated networks that deliveries may also reach."
    )
    delivery_schedule: str = _env(
        "REELHOOK_DELIVERY_SCHEDULE", "", "Comma-separated seconds; default: 12 tries over 3 days."
    )
    delivery_deadline: Deadline = _env(
        "REELHOOK_DELIVERY_DEADLINE", 20, "Seconds that an endpoint has for its whole answer."
    )
    ca_file: str = _env(
        "REELHOOK_CA_FILE",
        "",
        "PEM file of authorities that deliveries trust beside the system's.",
    )
    alert_url: str = _secret(
        "REELHOOK_ALERT_URL", "Where what goes wrong with deliveries is POSTed, such as a chat."
    )
    retention_raw: Days = _env(
        "REELHOOK_RETENTION_RAW", 30, "Days that raw bodies and attempts are kept; 0: for ever."
    )
    retention_events: Days = _env(
        "REELHOOK_RETENTION_EVENTS", 90, "Days that events and deliveries are kept; 0: for ever."
    )
    retention_tasks: Days = _env(
        "REELHOOK_RETENTION_TASKS", 365, "Days that tasks and results are kept; 0: for ever."
    )
    forwarded_allow_ips: str = _env(
        "FORWARDED_ALLOW_IPS", "127.0.0.1", "Proxies whose X-Forwarded-* headers are believed."
    )
    grace: Seconds = _env(
        "REELHOOK_GRACE", 8, "Seconds that a stop may take; less than the host grants it."
    )
    web_concurrency: int = _env(
        "WEB_CONCURRENCY", 1, "Always 1: for more, run `serve` more often, on PostgreSQL."
    )
    log_level: str = _env("LOG_LEVEL", "info", "debug, info, warning or error.")
    log_format: str = _env("LOG_FORMAT", "auto", "console, json, or auto: console on a terminal.")
    url: str = _secret("REELHOOK_URL", "Where the commands find the receiver's API.")
    project: str = _env("REELHOOK_PROJECT", "default", "The project of the commands.")
    hosting: str = ""  # the platform that runs us, by its own variable
    origins: Mapping[str, Origin] = {}  # of what is no default, by attribute

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Self:
        """The settings of this environment. Raises SettingsRefused with what to change."""
        present = {name: value for name, value in environ.items() if value != ""}
        hosting = next((name for name in _HOSTED if name in present), "")
        if hosting and "PORT" in present:
            present.setdefault("HOST", "0.0.0.0")  # noqa: S104 - the platform's router is in front
        try:
            found = cls.model_validate({**present, "hosting": hosting})
        except ValidationError as error:
            first = error.errors()[0]
            raise SettingsRefused(f"{first['loc'][0]}: {first['msg']}.") from None
        given = {name for name in cls.model_fields if environ.get(cls.variable(name))}
        hosted = found.model_fields_set - given - {"hosting"}
        origins = dict.fromkeys(given, Origin.ENVIRONMENT) | dict.fromkeys(hosted, Origin.HOSTING)
        return found.model_copy(update={"origins": origins})

    @classmethod
    def variable(cls, name: str) -> str:
        """The variable of an attribute; "" where it has none."""
        return str(cls.model_fields[name].validation_alias or "")

    def changed(self, origin: Origin, values: Mapping[str, Any]) -> Self:
        """With other values, and a note where they come from."""
        origins = {**self.origins, **dict.fromkeys(values, origin)}
        return self.model_copy(update={**values, "origins": origins})

    def shown(self) -> list[Setting]:
        """Every setting that has a variable, secrets as set or not."""
        return [
            Setting(
                name=variable,
                value=None if is_secret else _shown(value),
                is_set=value not in (None, ""),
                is_secret=is_secret,
                origin=self.origins.get(name, Origin.DEFAULT),
                meaning=field.description or "",
            )
            for name, field in type(self).model_fields.items()
            if (variable := self.variable(name))
            for value, is_secret in ((getattr(self, name), not field.repr),)
        ]

    @property
    def on_postgres(self) -> bool:
        """Whether DATABASE_URL names a PostgreSQL database."""
        return self.database_url.startswith(("postgresql://", "postgres://"))

    @property
    def database_path(self) -> Path:
        """The SQLite file. Raises SettingsRefused for another engine."""
        if not self.database_url:
            return self.data_dir / "reelhook.db"
        scheme, _, rest = self.database_url.partition(":///")
        if scheme != "sqlite" or not rest:
            raise SettingsRefused(
                "DATABASE_URL must be sqlite:///path (relative), sqlite:////path (absolute) or"
                " postgresql://user:password@host/database."
            )
        return Path(rest)

    @property
    def backup_path(self) -> Path:
        """Where backups go."""
        return self.backup_dir or self.data_dir / "backups"

    @property
    def networks(self) -> list[IPv4Network | IPv6Network]:
        """REELHOOK_ALLOW_NETWORKS as networks. Raises SettingsRefused."""
        try:
            return [ip_network(text) for text in listed(self.allow_networks)]
        except ValueError as error:
            raise SettingsRefused(f"REELHOOK_ALLOW_NETWORKS: {error}.") from None

    @property
    def schedule(self) -> tuple[int, ...] | None:
        """REELHOOK_DELIVERY_SCHEDULE in seconds, None for the default. Raises SettingsRefused."""
        try:
            return tuple(int(text) for text in listed(self.delivery_schedule)) or None
        except ValueError:
            raise SettingsRefused(
                "REELHOOK_DELIVERY_SCHEDULE must be seconds, such as 0,5,20."
            ) from None

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine can reach the receiver."""
        if self.host in _LOOPBACK_NAMES:
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def completed(self) -> Settings:
        """With what a loopback bind may make for itself. Raises SettingsRefused otherwise."""
        check_log(self)
        found = self
        if self.on_loopback:
            found = self._with_local_keys()
        else:
            self.check_public()
        check_keys(listed(found.signing_keys))
        return found

    def _with_local_keys(self) -> Settings:
        missing = {
            name: value
            for name, value in local_keys(self.data_dir).items()
            if not getattr(self, name)
        }
        return self.changed(Origin.DATA_DIR, missing)

    def check_public(self) -> None:
        """Raises SettingsRefused for what a bind that others can reach lacks."""
        for variable, value, remedy in (
            ("REELHOOK_PUBLIC_URL", self.public_url, "set it to the https URL platforms call"),
            ("REELHOOK_SIGNING_KEYS", self.signing_keys, "make one with `reelhook keys new`"),
            ("REELHOOK_ADMIN_TOKEN", self.admin_token, "make one with `reelhook keys new`"),
        ):
            if not value:
                raise SettingsRefused(
                    f"{variable} is not set and HOST is {self.host}, which others can reach:"
                    f" {remedy}, or listen on 127.0.0.1."
                )
        if len(self.admin_token) < MIN_ADMIN_TOKEN:
            raise SettingsRefused(
                f"REELHOOK_ADMIN_TOKEN has {len(self.admin_token)} characters, at least"
                f" {MIN_ADMIN_TOKEN} are needed. Make one with `reelhook keys new`."
            )
        if self.hosting in EPHEMERAL and not self.on_postgres:
            raise SettingsRefused(
                f"{EPHEMERAL[self.hosting]} wipes its disk at every restart, so SQLite would lose"
                " what it acknowledged. Set DATABASE_URL to a PostgreSQL database, or run on a"
                " machine with a disk that stays."
            )


def _shown(value: object) -> str | None:
    return None if value in (None, "") else redact(str(value))


def listed(text: str) -> list[str]:
    """The entries of a comma-separated setting."""
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def check_log(settings: Settings) -> None:
    """Raises SettingsRefused for a level or format that does not exist."""
    if settings.log_level.lower() not in ("debug", "info", "warning", "error"):
        raise SettingsRefused("LOG_LEVEL must be debug, info, warning or error.")
    if settings.log_format not in ("auto", "console", "json"):
        raise SettingsRefused("LOG_FORMAT must be auto, console or json.")


def new_key() -> str:
    """A signing key or token: 256 random bits, safe in a URL and an environment file."""
    return secrets.token_urlsafe(32)


def read_local(data_dir: Path) -> dict[str, str]:
    """What a loopback receiver left for the same user's commands; {} if there is nothing."""
    try:
        found = json.loads((data_dir / LOCAL_FILE).read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(name): str(value) for name, value in found.items()}


def address_of(settings: Settings) -> tuple[str, str]:
    """(URL, token) of the user's receiver: as set, else as one of the same user left them."""
    local = read_local(settings.data_dir)
    url = settings.url or local.get("url") or f"http://127.0.0.1:{settings.port}"
    return url, settings.admin_token or local.get("admin_token", "")


def write_local(data_dir: Path, **values: str) -> None:
    """Keep values for the same user's commands, at 0600 from the first byte. Raises OSError."""
    directories.make(data_dir)
    text = json.dumps({**read_local(data_dir), **values}, indent=1)
    draft = data_dir / f"{LOCAL_FILE}.{os.getpid()}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(data_dir / LOCAL_FILE)
    directories.sync(data_dir)


def local_keys(data_dir: Path) -> dict[str, str]:
    """The signing key and admin token of a loopback receiver; made at the first call.

    Raises SettingsRefused where they can't be kept.
    """
    found = read_local(data_dir)
    names = ("signing_keys", "admin_token")
    if any(name not in found for name in names):
        try:
            write_local(data_dir, **{name: found.get(name) or new_key() for name in names})
        except OSError as error:
            raise SettingsRefused(
                f"{error.filename or data_dir} can't be written: {error.strerror}. Set"
                " REELHOOK_DATA_DIR to a directory that the receiver's user can write."
            ) from None
        found = read_local(data_dir)
    return {name: found[name] for name in names}


def check_public_url(url: str) -> str:
    """A public URL without its trailing slash. Raises SettingsRefused for what is no base URL."""
    parts = _split(url)
    whole = parts.scheme in ("http", "https") and parts.hostname
    if not whole or parts.query or parts.fragment:
        raise SettingsRefused(
            f"REELHOOK_PUBLIC_URL is {redact(_without_user(url))!r}; it must look like"
            " https://hooks.example.com."
        )
    if parts.username or parts.password:
        raise SettingsRefused("REELHOOK_PUBLIC_URL must not carry a user name or password.")
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        return parts if parts.port != 0 else SplitResult("", "", "", "", "")
    except ValueError:  # half an IPv6 address, or a port that can't exist
        return SplitResult("", "", "", "", "")


def _without_user(url: str) -> str:
    scheme, slashes, rest = url.partition("//")
    return scheme + slashes + rest.rpartition("@")[2]
