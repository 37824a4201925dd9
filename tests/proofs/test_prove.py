"""`scripts/prove --ci` runs every proof there is, and docs/reliability.md tells of each."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PROOFS: Final = sorted(
    found[1]
    for path in (ROOT / "scripts" / "proofs").glob("*.py")
    if (found := re.search(r'\boptions\("(\w+)"', path.read_text()))
)


def test_there_are_proofs() -> None:
    assert {"kill", "power"} <= set(PROOFS)
    assert all((ROOT / "scripts" / "proofs" / f"{name}.py").is_file() for name in PROOFS)


def test_the_short_forms_of_all_are_run() -> None:
    script = (ROOT / "scripts/prove").read_text()
    found = re.search(r"^batches=\((.+?)^\)", script, re.MULTILINE | re.DOTALL)
    assert found is not None
    run = set(found[1].replace('"', " ").split())
    assert set(PROOFS) <= run
    assert {f"{name}:postgres" for name in PROOFS if _is_of_both_stores(name)} <= run


def _is_of_both_stores(name: str) -> bool:
    return "add_options(parser)" in (ROOT / "scripts" / "proofs" / f"{name}.py").read_text()


def test_each_has_its_section_with_the_command_and_the_day_of_its_figures() -> None:
    page = (ROOT / "docs" / "reliability.md").read_text()
    for name in PROOFS:
        found = re.search(rf"^## {name}: [^\n]+\n(.+?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
        assert found is not None, name
        assert f"scripts/prove {name}" in found[1]
        assert re.search(r"20\d\d-\d\d-\d\d", found[1]), name
