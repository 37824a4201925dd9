"""What PostgreSQL holds is judged as SQLite's file is: what is lost there is found, too."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from receiver.callbacks import Arrival
from receiver.clock import wall_clock
from receiver.store.postgres import PostgresStore
from scripts.proofs import postgres as installed
from scripts.proofs.copied import copy, damage_in
from scripts.proofs.harness import Callback, Verdict, callbacks_of
from scripts.proofs.postgres import MISSING, NotInstalled
from scripts.proofs.stored import counts_of, problems_of
from scripts.proofs.stores import Databases, chosen, is_strict, one_of
from tests.doubles import LIMIT_S, ROOT
from tests.make import arrival, endpoint
from tests.postgres import Server

pytestmark = pytest.mark.anyio


async def test_a_loss_in_postgresql_is_found(postgres: Server, tmp_path: Path) -> None:
    callbacks, copied = callbacks_of(2), tmp_path / "copy.db"
    async with Databases(postgres.url()).one() as url:
        async with await PostgresStore.open(url, clock=wall_clock) as store:
            await store.add_endpoint(endpoint())
            for callback in callbacks:
                await store.record(recorded(callback))
        await copy(url, copied)
        assert problems_of(copied, callbacks) == []
        assert counts_of(copied)["deliveries"] == 3
        assert await damage_in(url) == []
        raw = await asyncpg.connect(url)
        await raw.execute("DELETE FROM results WHERE idx = 0")
        await raw.close()
        await copy(url, copied)
        assert len(problems_of(copied, callbacks)) > 0
    names = postgres.psql("SELECT count(*) FROM pg_database WHERE datname LIKE 'reelhook_proof%'")
    assert names == "0"


def recorded(callback: Callback) -> Arrival:
    found = json.loads(callback.body)["data"]
    return arrival(*found, body=callback.body, task_id=callback.task, expected=callback.expected)


async def test_without_the_package_a_proof_is_skipped_and_in_ci_it_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(installed, "programs", lambda: None)
    asked = argparse.Namespace(store="postgres", database_url=None, ci=False)
    with pytest.raises(NotInstalled) as refused:
        async with chosen(asked):
            pass
    assert not is_strict(asked)
    assert Verdict("kill").skip(str(refused.value), strict=False) == 0
    asked.ci = True
    assert is_strict(asked)
    assert Verdict("kill").skip(str(refused.value), strict=True) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[0])["skipped"] == MISSING
    monkeypatch.setenv("REELHOOK_CI", "1")
    asked.ci = False
    assert is_strict(asked)


async def test_sqlite_needs_no_server() -> None:
    asked = argparse.Namespace(store="sqlite", database_url=None, ci=True)
    async with chosen(asked) as found, one_of(found) as env:
        assert env == {}


_HOLDS_A_SERVER = """
import sys
from scripts.proofs.postgres import private
with private() as server:
    print(server.url(), flush=True)
    sys.stdin.read()
"""


async def test_a_server_ends_with_whoever_began_it_and_was_killed(postgres: Server) -> None:
    """Nothing of the process itself can see to that."""
    with subprocess.Popen(  # noqa: ASYNC220 - it begins at once
        [sys.executable, "-c", _HOLDS_A_SERVER],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        raw = await asyncpg.connect(url)
        ended = asyncio.Event()
        raw.add_termination_listener(lambda _: ended.set())
        folder = Path(await raw.fetchval("SHOW data_directory")).parent
        process.kill()
    try:
        async with asyncio.timeout(LIMIT_S):
            await ended.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
