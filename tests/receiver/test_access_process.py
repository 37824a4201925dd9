"""API tokens over a receiver that is stopped and started again."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.doubles import ADMIN_TOKEN, running

pytestmark = pytest.mark.process


def test_a_stop_notes_when_tokens_were_used_and_a_start_knows_them(tmp_path: Path) -> None:
    admin = {"authorization": f"Bearer {ADMIN_TOKEN}"}
    asked = {"name": "x", "scope": "read"}
    once = {**admin, "idempotency-key": "k"}
    with running(tmp_path) as found:
        tokens = f"{found.ready['url']}/v1/api-tokens"
        made = httpx.post(tokens, json=asked, headers=once).json()
        holder = {"authorization": f"Bearer {made['token']}"}
        assert httpx.get(f"{found.ready['url']}/v1/tasks", headers=holder).status_code == 200
        (listed,) = httpx.get(tokens, headers=admin).json()["data"]
        assert listed["last_used_at"] is None
    with running(tmp_path) as found:
        tokens = f"{found.ready['url']}/v1/api-tokens"
        (listed,) = httpx.get(tokens, headers=admin).json()["data"]
        assert listed["last_used_at"] is not None
        assert httpx.get(f"{found.ready['url']}/v1/tasks", headers=holder).status_code == 200
        again = httpx.post(tokens, json=asked, headers=once)
        assert (again.status_code, again.json()) == (201, made)
        httpx.delete(f"{tokens}/{made['id']}", headers=admin)
        assert httpx.get(f"{found.ready['url']}/v1/tasks", headers=holder).status_code == 401
