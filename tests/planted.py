"""Leaks on purpose, one in each place: tests that pass, in a session that must not.

Run by tests/test_leaks.py alone, which says by `PLANT` what kind of secret is leaked.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from receiver.errors import Invalid
from submitter.errors import PublicUrlRefused
from tests.doubles import ADMIN_TOKEN, ROOT, Answer, assembled
from tests.test_leaks import LEAKS

LEAK = LEAKS[os.environ["PLANT"]]
ENVIRON = {"REELHOOK_ADMIN_TOKEN": ADMIN_TOKEN}  # by which a key is known
SAY = "import sys; getattr(sys, sys.argv[1]).write(sys.stdin.read())"


def say(stream: str, **options: Any) -> None:
    argv = [sys.executable, "-c", SAY, stream]
    subprocess.run(argv, input=LEAK, text=True, env=ENVIRON, check=True, **options)


def test_stdout() -> None:
    say("stdout", capture_output=True)


def test_stderr() -> None:
    say("stderr", stderr=subprocess.PIPE)


def test_inherited_output() -> None:
    say("stderr")


def test_file(tmp_path: Path) -> None:
    with (tmp_path / "serve.log").open("w") as log:
        say("stderr", stderr=log)


def test_arguments() -> None:
    subprocess.run(["true", LEAK], check=True, env=ENVIRON)


def test_asyncio_process() -> None:
    async def run() -> None:
        pipe = subprocess.PIPE
        process = await asyncio.create_subprocess_exec("cat", stdin=pipe, stdout=pipe)
        await process.communicate(LEAK.encode())

    asyncio.run(run())


def test_record() -> None:
    logging.getLogger("elsewhere").warning("a %s", LEAK)


def test_exception() -> None:
    try:
        raise ValueError(LEAK)
    except ValueError:
        logging.getLogger("uvicorn.error").error("failed", exc_info=True)


def test_debug_record() -> None:
    source = "import logging; logging.getLogger('httpx').info(leak)"
    exec(compile(source, f"{ROOT}/receiver/planted.py", "exec"), {"leak": LEAK})


def test_line_of_a_receiver(tmp_path: Path) -> None:
    async def run() -> None:
        async with assembled(tmp_path) as found:
            found.service.ingest._journal(LEAK, 401, None, "-", 0, 0.0, "-")

    asyncio.run(run())


def test_error() -> None:
    Invalid("no", evidence=LEAK)


def test_error_of_the_submitter() -> None:
    PublicUrlRefused("no", url="https://example.com", reason=LEAK)


def test_answer() -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(400, text=LEAK))
    with httpx.Client(transport=transport) as client:
        client.put("http://receiver/v1/tasks/1")


def test_answer_on_a_raw_connection() -> None:
    Answer(400, {}, LEAK.encode())


def test_print() -> None:
    sys.stdout.write(LEAK)


def test_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "reelhook.db")) as connection:
        connection.execute("CREATE TABLE t (c TEXT)")
        connection.execute("INSERT INTO t VALUES (?)", (LEAK,))
        connection.commit()
