"""The files in which others run us: checked by their own tools, and by what our code says."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import requires
from itertools import chain
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from ruamel.yaml import YAML
from typer.main import get_command

from receiver.cli import whole
from receiver.settings import Settings
from scripts.proofs.ports import held_port
from tests.doubles import LIMIT_S, running

ROOT: Final = Path(__file__).parents[1]
DEPLOY: Final = ROOT / "deploy"
COMPOSE: Final = sorted([*ROOT.glob("compose*.yaml"), *DEPLOY.glob("compose*.yaml")])
KUBERNETES: Final = sorted(DEPLOY.glob("kubernetes*.yaml"))
GRACE: Final = float(Settings.model_fields["grace"].default)
LINGER: Final = 1.0  # seconds that a stop may take beyond it (receiver/serve.py)
KEYS: Final = {"RUNWARE_API_KEY", "NANOGPT_API_KEY"}
PROBES: Final = {"/healthz", "/readyz"}
EXPOSURE: Final = 15  # tenths; systemd calls that OK, and the 96 of a bare unit unsafe


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the development environment."""
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


# What all of them say of us


def read(path: Path) -> Any:
    """A YAML file of one document."""
    return YAML(typ="safe").load(path.read_text())


def _procfile(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines():
        yield shlex.split(line.partition(":")[2])


def _unit(path: Path) -> Iterator[list[str]]:
    for line in re.findall(r"^ExecStart=/opt/reelhook/bin/(.+)$", path.read_text(), re.MULTILINE):
        yield ["reelhook", *shlex.split(line.removeprefix("reelhook "))]


def _fly(path: Path) -> Iterator[list[str]]:
    found = tomllib.loads(path.read_text())
    yield from map(shlex.split, found["processes"].values())
    if "deploy" in found:
        yield shlex.split(found["deploy"]["release_command"])


def _render(path: Path) -> Iterator[list[str]]:
    for service in read(path)["services"]:
        lines = (service.get(key) for key in ("startCommand", "preDeployCommand"))
        yield from (shlex.split(line) for line in lines if line)


def _compose(path: Path) -> Iterator[list[str]]:
    services = read(path)["services"].values()
    yield from (one["command"] for one in services if one["image"] == "reelhook")


def _kubernetes(path: Path) -> Iterator[list[str]]:
    for pod in pods(path).values():
        for one in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]:
            yield one["command"]


STARTS: Final = [
    (_procfile, [ROOT / "Procfile", DEPLOY / "Procfile.sqlite"]),
    (_unit, sorted(DEPLOY.rglob("*.service"))),
    (_fly, sorted(DEPLOY.glob("fly*.toml"))),
    (_render, sorted(DEPLOY.glob("render*.yaml"))),
    (_compose, COMPOSE),
    (_kubernetes, KUBERNETES),
]


def test_every_command_that_is_started_exists() -> None:
    known = get_command(whole()).commands  # type: ignore[attr-defined]
    for read_from, paths in STARTS:
        for path in paths:
            for program, name, *options in read_from(path):
                assert program == "reelhook", path.name
                taken = {option for one in known[name].params for option in one.opts}
                given = {option for option in options if option.startswith("-")}
                assert given <= taken, (path.name, name)


def set_by_us() -> Iterator[tuple[str, str]]:
    """Every variable that one of the files sets, with the name of the file."""
    for path in DEPLOY.rglob("systemd/**/*"):
        if path.is_file():
            for line in re.findall(r"^Environment=(.+)$", path.read_text(), re.MULTILINE):
                yield from ((path.name, pair.partition("=")[0]) for pair in shlex.split(line))
    for path in DEPLOY.glob("fly*.toml"):
        yield from ((path.name, key) for key in tomllib.loads(path.read_text())["env"])
    for path in [*COMPOSE, *KUBERNETES, *DEPLOY.glob("render*.yaml")]:
        text = path.read_text()
        shouted = re.findall(r"(?:key: |name: |^ +)([A-Z][A-Z_]+)(?::|,|\}|$)", text, re.MULTILINE)
        yield from ((path.name, key) for key in shouted)


def test_every_variable_that_is_set_is_a_setting() -> None:
    known = {str(field.validation_alias) for field in Settings.model_fields.values()}
    theirs = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD"}
    found = set(set_by_us())
    assert {name for name, _ in found} >= {"hardened.conf", *(path.name for path in COMPOSE)}
    assert {(name, key) for name, key in found if key not in known | theirs | KEYS} == set()


# The image


@cache
def instructions() -> Sequence[tuple[str, str]]:
    """The Dockerfile: instruction and the rest of each."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().split("\n") if line[:1] != "#"]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (word, rest)
        for word, _, rest in (line.partition(" ") for line in whole.split("\n") if line)
    ]


def said(instruction: str) -> list[str]:
    """What the Dockerfile says with this instruction."""
    return [rest for word, rest in instructions() if word == instruction]


def test_hadolint_has_nothing_to_say_of_the_dockerfile() -> None:
    found = tool("hadolint", "--no-color", "--failure-threshold", "style", ROOT / "Dockerfile")
    assert (found.returncode, found.stdout) == (0, "")


def test_the_image_is_not_root_has_one_volume_and_hears_signals() -> None:
    environment = dict(pair.split("=", 1) for pair in shlex.split(" ".join(said("ENV"))))
    (user,) = said("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)  # by number, or Kubernetes can't tell
    assert [json.loads(text) for text in said("VOLUME")] == [[environment["REELHOOK_DATA_DIR"]]]
    assert said("STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(said("CMD")[-1]) == ["reelhook", "serve"]
    assert said("ENTRYPOINT") == []  # another role is another command
    assert said("EXPOSE") == [environment["PORT"]]
    assert environment["HOST"] == "0.0.0.0"


def pip_lines() -> list[list[str]]:
    """What pip does in the image: a command and its arguments each."""
    runs = [rest for rest in said("RUN") if "/pip" in rest]
    lines = [[json.loads(rest)] if rest[0] == "[" else each_command(rest) for rest in runs]
    return [line[1:] for line in chain(*lines)]


def each_command(text: str) -> list[list[str]]:
    return [shlex.split(command) for command in text.split("&&")]


def needed(roots: Iterable[str]) -> set[str]:
    """These distributions, and what they need."""
    found, rest = set[str](), [Requirement(line).name for line in roots]
    while rest:
        name = rest.pop().lower()
        if name not in found:
            found.add(name)
            more = map(Requirement, requires(name) or ())
            rest += [
                one.name for one in more if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    return found


def test_nothing_that_only_builds_the_image_stays_in_it() -> None:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())
    runs = [
        *found["project"]["dependencies"],
        *found["project"]["optional-dependencies"]["postgres"],
    ]
    builds = needed(found["dependency-groups"]["build"]) - needed(runs)
    command, answer, *names = pip_lines()[-1]
    assert (command, answer) == ("uninstall", "--yes")
    assert names == [*sorted(builds), "pip"]


def test_the_image_holds_what_the_lock_says() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert [line for command, *line in pip_lines() if command == "install"] == [
        ["--require-hashes", "-r", "requirements.lock"],
        ["--no-deps", "--no-build-isolation", "."],
    ]
    assert said("ADD") == []
    assert "://" not in text
    assert all("slim" in image for image in said("FROM"))


def copied() -> list[str]:
    """What of this checkout gets into the image."""
    return [
        source
        for rest in said("COPY")
        if not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]


def test_the_image_is_built_from_what_is_copied_alone(tmp_path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text().split("\n")
    lines = [line for line in ignored if line and not line.startswith("#")]
    assert lines[0] == "*"
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(copied())
    for name in copied():
        source = ROOT / name
        if source.is_dir():  # what Python keeps there comes and goes, as others import us
            cached = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, tmp_path / name, ignore=cached)
        else:
            shutil.copy(source, tmp_path / name)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=LIMIT_S)
    assert list(tmp_path.glob("reelhook-*.whl"))
    shutil.rmtree(tmp_path)  # copies of sources, whose examples of keys nobody has written there


@pytest.mark.process
def test_the_image_tells_whether_it_is_well(tmp_path: Path) -> None:
    command = json.loads(said("HEALTHCHECK")[0].partition("CMD ")[2])
    assert command[0] == "python"

    def verdict(port: int) -> int:
        environment = {**os.environ, "PORT": str(port)}
        argv = [sys.executable, *command[1:]]
        run = subprocess.run(
            argv, env=environment, capture_output=True, timeout=LIMIT_S, check=False
        )
        return run.returncode

    with running(tmp_path) as receiver:
        assert verdict(receiver.port) == 0
    assert verdict(held_port()) != 0


# Compose


def test_the_compose_files_fit_their_specification() -> None:
    found = tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *COMPOSE)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_shows_web_alone_and_on_loopback_alone(path: Path) -> None:
    services = read(path)["services"]
    ours = {name: one for name, one in services.items() if one["image"] == "reelhook"}
    assert [name for name, one in services.items() if "ports" in one] == ["web"]
    assert services["web"]["ports"] == ["127.0.0.1:8000:8000"]
    for name, one in ours.items():
        assert one["read_only"], name
        assert one["cap_drop"] == ["ALL"], name
        assert float(one["stop_grace_period"].removesuffix("s")) > GRACE + LINGER, name
        listens = name in ("web", "worker")  # so the image's own check can ask it
        assert listens != bool(one.get("healthcheck", {}).get("disable")), name


def test_compose_has_every_role_of_the_procfile_and_migrates_first() -> None:
    services = read(COMPOSE[0])["services"]
    assert set(services) == {"postgres", "migrate", "web", "worker", "reconciler"}
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in ("web", "worker"):
        waits = {"migrate": {"condition": "service_completed_successfully"}}
        assert services[name]["depends_on"] == waits, name
        assert services[name]["environment"]["DATABASE_URL"].startswith("postgresql://"), name


# Kubernetes


def manifests(path: Path) -> Iterator[Any]:
    """The objects of a file, those of a list too."""
    for document in YAML(typ="safe").load_all(path.read_text()):
        yield from document["items"] if document["kind"] == "List" else [document]


def pods(path: Path) -> dict[str, Any]:
    """What runs: the pod of each workload by its name."""
    return {
        one["metadata"]["name"]: one["spec"]["template"]
        for one in manifests(path)
        if "template" in one["spec"]
    }


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_pods_are_not_root_and_write_to_volumes_alone(path: Path) -> None:
    (user,) = said("USER")
    for name, pod in pods(path).items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert str(spec["securityContext"]["runAsUser"]) == user.split(":")[0], name
        assert not spec["automountServiceAccountToken"], name
        volumes = {volume["name"] for volume in spec["volumes"]} | {"data"}
        for one in [*spec["containers"], *spec.get("initContainers", [])]:
            assert one["securityContext"]["readOnlyRootFilesystem"], name
            assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert {mount["name"] for mount in one.get("volumeMounts", [])} <= volumes, name
            assert one["resources"]["limits"]["memory"], name


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_probes_ask_what_the_receiver_answers_and_stops_are_long_enough(path: Path) -> None:
    web = next(
        pod["spec"] for name, pod in pods(path).items() if name in ("reelhook", "reelhook-web")
    )
    (container,) = [one for one in web["containers"] if one["name"] == "web"]
    asked = {kind: one["httpGet"] for kind, one in container.items() if kind.endswith("Probe")}
    assert {one["path"] for one in asked.values()} == PROBES
    assert (
        asked["livenessProbe"]["path"] == "/healthz"
    )  # a database that is away is no reason to die
    assert {one["port"] for one in asked.values()} == {container["ports"][0]["name"]}
    pause = (
        container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", ["", "0"])
    )
    assert web["terminationGracePeriodSeconds"] > float(pause[1]) + GRACE + LINGER


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_services_and_selectors_lead_to_pods(path: Path) -> None:
    labels = [pod["metadata"]["labels"] for pod in pods(path).values()]
    for one in manifests(path):
        selector = one["spec"].get("selector", {})
        wanted = selector.get("matchLabels", selector)
        if one["kind"] != "Ingress":
            assert sum(wanted.items() <= found.items() for found in labels) == 1, one["kind"]
    (service,) = [one for one in manifests(path) if one["kind"] == "Service"]
    assert service["spec"]["ports"][0]["targetPort"] == "http"


# systemd

UNITS: Final = sorted((DEPLOY / "systemd").glob("*.service"))


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the units, with a program of this machine in them."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs Debian's package systemd on this machine")
    folder = tmp_path_factory.mktemp("units")
    shutil.copytree(DEPLOY / "systemd", folder, dirs_exist_ok=True)
    ours = str(Path(sys.executable).parent / "reelhook")
    for path in folder.glob("*.service"):
        text = path.read_text()
        assert "ExecStart=/opt/reelhook/bin/reelhook " in text
        path.write_text(text.replace("/opt/reelhook/bin/reelhook", ours))
    return folder


def analyze(units: Path, *arguments: str) -> str:
    """What systemd-analyze says that is wrong; "" if it is content."""
    environment = {**os.environ, "SYSTEMD_UNIT_PATH": f"{units}:"}
    found = subprocess.run(
        ["systemd-analyze", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stderr if found.returncode == 0 else f"{found.stdout}{found.stderr}exit"


def test_systemd_takes_every_unit(units: Path) -> None:
    files = sorted([*units.glob("*.service"), *units.glob("*.timer")])
    told = analyze(units, "verify", "--recursive-errors=no", *map(str, files))
    assert [line for line in told.split("\n") if str(units) in line or "exit" in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_little_that_a_unit_may_do(units: Path, unit: Path) -> None:
    wanted = (f"--threshold={EXPOSURE}", "--offline=true", "--no-pager", str(units / unit.name))
    assert analyze(units, "security", *wanted) == ""


def test_systemd_gives_a_stop_the_time_that_it_takes() -> None:
    text = (DEPLOY / "systemd/reelhook-.service.d/hardened.conf").read_text()
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    assert float(found[1]) > GRACE + LINGER
