"""docs/alerts.yml: promtool takes it, it fires when it should, and it names what is exported."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from receiver.metrics import COUNTER, HISTOGRAM, OF_THE_PROCESS, OF_THE_STORE
from tests.test_docs import DOCS, ROOT, page

RULES: Final = DOCS / "alerts.yml"
CASES: Final = ROOT / "tests" / "alerts.yml"
SUFFIXES: Final = {COUNTER: ("_total",), HISTOGRAM: ("_bucket", "_count", "_sum")}
EXPORTED: Final = {
    f"{defined.name}{suffix}": {*defined.labels, *(("le",) if suffix == "_bucket" else ())}
    for defined in (*OF_THE_PROCESS, *OF_THE_STORE)
    for suffix in SUFFIXES.get(defined.kind, ("",))
}
OF_A_TARGET: Final = {"job", "instance"}


def promtool(*arguments: str) -> str:
    """What promtool says; a test that it finds wrong fails."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed (Debian: prometheus)")
    found = subprocess.run([program, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", RULES.read_text(), re.MULTILINE)


def test_promtool_takes_the_rules_and_sees_them_fire() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", str(RULES))
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


def test_promtool_takes_the_configuration_of_the_page(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```yaml\n(scrape_configs.*?)```", page("observability.md"), re.DOTALL)
    config = tmp_path / "prometheus.yml"
    config.write_text(f"rule_files: [{RULES}]\n{shown}")
    promtool("check", "config", "--syntax-only", str(config))
    assert "job_name: reelhook\n" in shown


def test_every_alert_is_explained_and_tried() -> None:
    cases = CASES.read_text()
    rows = re.findall(r"^\| `(Reelhook\w+)` \|", page("observability.md"), re.MULTILINE)
    assert rows == alerts()
    for alert in alerts():
        assert f"alertname: {alert}, eval_time: 100m, exp_alerts: []" in cases  # all is well
        fired = rf"alertname: {alert}\n +eval_time: 80m\n +exp_alerts:\n +- exp_labels"
        assert re.search(fired, cases), alert


@pytest.mark.parametrize("path", [RULES, CASES, DOCS / "observability.md"], ids=lambda p: p.name)
def test_every_metric_that_is_named_is_exported(path: Path) -> None:
    """With labels that it has; `reelhook_endpoint_…` is a name that is cut."""
    text = path.read_text()
    bare = {one.name for one in OF_THE_PROCESS if one.kind == HISTOGRAM}  # as the table has them
    named = set(re.findall(r"\breelhook_\w+\b(?!…)", text))
    assert len(named) > 10
    assert named - EXPORTED.keys() - (bare if path.suffix == ".md" else set()) == set()
    for name, selector in re.findall(r"\b(reelhook_\w+){([^}]*)}", text):
        labels = set(re.findall(r"(\w+)(?:=~?|!=)", selector))
        assert labels - OF_A_TARGET <= EXPORTED[name], name
