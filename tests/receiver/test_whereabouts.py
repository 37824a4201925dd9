"""Who has certainly ended, and how Linux tells it: nobody is buried alive."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from receiver.store.postgres import kernel
from receiver.whereabouts import NOBODY, Whereabouts, is_gone

HERE = Whereabouts("a-host", 1, "a-machine", 17)
OTHER = Whereabouts("a-host", 7, "a-machine", 1_000)


@pytest.mark.parametrize(
    ("found", "gone"), [(NOBODY, True), (2_000, True), (1_000, False), (None, False)]
)
def test_a_neighbour_is_gone_when_its_number_is_nobodys_or_anothers(
    found: int | None, gone: bool
) -> None:
    assert is_gone(OTHER, HERE, {7: found}.__getitem__) is gone


@pytest.mark.parametrize(
    ("other", "here"),
    [
        (replace(OTHER, host="another"), HERE),
        (replace(OTHER, machine="another"), HERE),
        (replace(OTHER, machine=None, born=None), HERE),
        (replace(OTHER, born=None), HERE),
        (replace(OTHER, machine=None), replace(HERE, machine=None)),
    ],
)
def test_of_who_is_no_neighbour_nothing_is_asked(other: Whereabouts, here: Whereabouts) -> None:
    nobody: dict[int, int] = {}
    assert not is_gone(other, here, nobody.__getitem__)


def test_a_process_knows_itself_and_whether_others_have_ended() -> None:
    here = kernel.here()
    assert here.machine is not None
    assert (here.pid, here.born) == (os.getpid(), kernel.born(os.getpid()))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        began = kernel.born(child.pid)
        assert began is not None
        assert began > (here.born or 0) > NOBODY
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert kernel.born(child.pid) == began  # nobody has taken note, and the number is still its
        child.wait()
        assert kernel.born(child.pid) == NOBODY
    assert kernel.born(1 << 40) is None


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """What of /proc is read, as of this process; to be changed."""
    own = tmp_path / str(os.getpid())
    (own / "ns").mkdir(parents=True)
    (tmp_path / "self").symlink_to(own)
    for name in ("status", "stat"):
        (own / name).write_bytes((kernel.PROC / "self" / name).read_bytes())
    for name in ("pid", "time"):
        (own / "ns" / name).symlink_to(os.readlink(kernel.PROC / "self/ns" / name))
    copytree(kernel.PROC / "sys/kernel/random", tmp_path / "sys/kernel/random")
    return tmp_path


def test_what_is_read_is_all_that_is_needed(proc: Path) -> None:
    assert kernel.here(proc) == kernel.here()


@pytest.mark.parametrize("name", ["self/ns/pid", "self/ns/time", "sys/kernel/random/boot_id"])
def test_other_namespaces_and_another_start_are_another_machine(proc: Path, name: str) -> None:
    (proc / name).unlink()
    if name.endswith("boot_id"):
        (proc / name).write_text("another\n")
    else:
        (proc / name).symlink_to("another:[1]")
    found = kernel.here(proc)
    assert found.machine is not None
    assert found.machine != kernel.here().machine


def test_before_time_namespaces_there_was_one(proc: Path) -> None:
    (proc / "self/ns/time").unlink()
    assert kernel.here(proc).machine is not None


@pytest.mark.parametrize(
    "numbers",
    ["", "NSpid: {own} 1\n", "NSpid: 1 {own}\n", "NSpid: 1\n", "NSpid: x\n"],
)
def test_a_proc_of_other_numbers_says_nothing(proc: Path, numbers: str) -> None:
    """It is mounted from outside of this process's namespace, or is not Linux's."""
    (proc / "self/status").write_text(numbers.format(own=os.getpid()))
    assert kernel.here(proc) == Whereabouts(kernel.here().host, os.getpid())


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert kernel.here(tmp_path) == Whereabouts(kernel.here().host, os.getpid())
    # As where it hides the processes of other users.
    assert kernel.born(os.getpid(), tmp_path) is None


def test_a_name_may_have_brackets_and_spaces(proc: Path) -> None:
    text = (proc / "self/stat").read_text()
    (proc / "self/stat").write_text(f"{os.getpid()} (a) S 1) {text.rpartition(')')[2]}")
    assert kernel.born(os.getpid(), proc) == kernel.here().born
