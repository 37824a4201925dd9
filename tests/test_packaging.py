"""The wheel as users get it, and the locks that it is built and tested with."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from zipfile import ZipFile

import httpx
import pytest

from receiver import __version__

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = ("requirements.lock", "requirements-dev.lock")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = target.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that had nothing, then the wheel by pip.

    The dependencies, which pip would fetch, are those of this environment.
    """
    home = tmp_path_factory.mktemp("venv")
    python = home / "bin" / "python"
    venv.create(home, with_pip=find_spec("pip") is None, symlinks=True)
    with_pip = [sys.executable, "-m", "pip", "--python", str(python)]
    pip = [str(python), "-m", "pip"] if find_spec("pip") is None else with_pip
    command = [*pip, "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    inside = sysconfig.get_path("purelib", "venv", {"base": str(home), "platbase": str(home)})
    # A directory named in a .pth is searched, its own .pth (our editable install) is not read.
    Path(inside, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def clean(**more: str) -> dict[str, str]:
    """The environment of who has no checkout; uncounted by coverage."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COVERAGE", "COV_", "PYTHON"))
    }
    return kept | more


def run(python: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the environment's Python far from the checkout."""
    command = [str(python), *arguments]
    return subprocess.run(
        command, cwd=python.parent, env=clean(**more), check=True, capture_output=True, text=True
    )


@contextmanager
def served(python: Path, folder: Path) -> Iterator[str]:
    """The URL of the installed `reelhook serve`."""
    with subprocess.Popen(
        [python.parent / "reelhook", "serve"],
        cwd=folder,
        env=clean(REELHOOK_DATA_DIR=str(folder), PORT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_the_wheel_has_every_file_that_the_code_reads(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())

    for package in ("receiver", "submitter"):
        for path in (ROOT / package).rglob("*"):
            # What Python keeps for itself comes and goes, under names that are not all its own.
            is_ours = path.is_file() and "__pycache__" not in path.parts
            assert not is_ours or str(path.relative_to(ROOT)) in names
    assert {"receiver/py.typed", "submitter/py.typed"} <= names
    assert "receiver/store/sql/sqlite/0001_initial.sql" in names
    assert {"submitter/simulator/sample.mp4", "submitter/simulator/published.json"} <= names


def test_the_wheel_holds_the_two_packages_alone(wheel: Path) -> None:
    tops = {name.partition("/")[0] for name in ZipFile(wheel).namelist()}
    assert tops == {"receiver", "submitter", f"reelhook-{__version__}.dist-info"}


def test_the_installed_command_runs(installed: Path) -> None:
    command = str(installed.parent / "reelhook")

    told = subprocess.run([command, "--version"], env=clean(), capture_output=True, text=True)
    assert told.stdout == f"reelhook {__version__}\n"
    assert run(installed, "-m", "receiver", "--version").stdout == f"reelhook {__version__}\n"
    where = run(installed, "-c", "import receiver; print(receiver.__file__)").stdout
    assert Path(where).is_relative_to(installed.parents[1])


@pytest.mark.process
def test_the_installed_receiver_has_its_pages_and_does_its_work(
    installed: Path, tmp_path: Path
) -> None:
    with served(installed, tmp_path) as url:
        login = httpx.get(f"{url}/login")
        parts = re.findall(r'(?:href|src)="(/[^"]+\.(?:css|js|svg)[^"]*)"', login.text)
        answers = {part: httpx.get(f"{url}{part}").status_code for part in parts}
        data = {"REELHOOK_DATA_DIR": str(tmp_path)}
        told = run(installed, "-m", "receiver", "trigger", "result.succeeded", "--json", **data)

    assert login.status_code == 200
    assert set(answers.values()) == {200}, answers
    assert "result.succeeded" in told.stdout


def test_the_installed_command_has_the_submitters_commands(installed: Path) -> None:
    told = run(installed, "-m", "receiver", "--help")
    assert told.stderr == ""
    assert "simulate" in told.stdout


def test_the_entry_points(wheel: Path) -> None:
    name = f"reelhook-{__version__}.dist-info/entry_points.txt"
    text = ZipFile(wheel).read(name).decode()
    assert "[console_scripts]\nreelhook = receiver.cli:main\n" in text
    assert "[reelhook.commands]\nsubmitter = submitter.cli:app\n" in text
    assert "[pytest11]\nreelhook_receiver = receiver.testing\n" in text


def test_locks_pin_what_is_declared_with_hashes_and_name_no_registry() -> None:
    project = _project()
    groups = project["dependency-groups"]
    runtime = _names([*project["project"]["dependencies"], *groups["build"]])
    wanted = dict(zip(LOCKS, (runtime, runtime | _names(groups["dev"])), strict=True))
    for name in LOCKS:
        text = (ROOT / name).read_text()
        pins = re.findall(r"^([a-z0-9._-]+)(?:\[[a-z,]+\])?==", text, re.MULTILINE)
        assert wanted[name] <= set(pins)
        assert len(re.findall(r"==.*\\\n    --hash=sha256:", text)) == len(pins)
        assert "://" not in text
        assert "index-url" not in text


def test_what_other_platforms_install_is_what_the_lock_has() -> None:
    first, second, *pins = (ROOT / "requirements.txt").read_text().splitlines()
    locked = re.findall(r"^(\S.*==.*) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert first.startswith("# Made by scripts/lock")
    assert second == ".[postgres]"  # pip reads it as this folder
    assert pins == locked


def test_the_wheel_offers_the_driver_of_postgresql(wheel: Path) -> None:
    name = f"reelhook-{__version__}.dist-info/METADATA"
    text = ZipFile(wheel).read(name).decode()
    assert re.search(r"^Requires-Dist: asyncpg>=\S+; extra == 'postgres'$", text, re.MULTILINE)


def test_the_runtime_lock_is_part_of_the_development_lock() -> None:
    runtime, development = ((ROOT / name).read_text() for name in LOCKS)
    pins = re.findall(r"^[a-z0-9._-]+==\S+", runtime, re.MULTILINE)
    assert [pin for pin in pins if pin not in development] == []


def test_the_locks_hold_the_build_backend() -> None:
    project = _project()
    needed = _names(project["build-system"]["requires"])
    assert needed <= _names(project["dependency-groups"]["build"])


def _project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~; ]", text)[0].lower() for text in requirements}
