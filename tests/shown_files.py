"""Files of this repository that are shown whole on the page that says what to do with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
_PAGES: Final[Mapping[str, str]] = {
    "Procfile": "deploy/heroku.md",
    "Dockerfile": "deploy/README.md",
    "compose.yaml": "deploy/README.md",
    "deploy/Caddyfile": "deploy/vm.md",
    "deploy/nginx.conf": "deploy/vm.md",
    "deploy/systemd/reelhook-.service.d/hardened.conf": "deploy/vm.md",
    **{
        f"deploy/systemd/reelhook-{name}.service": "deploy/vm.md"
        for name in ("serve", "reconcile", "migrate", "web@", "worker@", "backup")
    },
    "deploy/systemd/reelhook-backup.timer": "deploy/vm.md",
    "deploy/kubernetes.yaml": "deploy/kubernetes.md",
    "deploy/kubernetes.sqlite.yaml": "deploy/kubernetes.md",
    "deploy/fly.toml": "deploy/fly.md",
    "deploy/fly.sqlite.toml": "deploy/fly.md",
    "deploy/render.yaml": "deploy/render.md",
    "deploy/render.sqlite.yaml": "deploy/render.md",
}
_LANGUAGES: Final = {
    ".yaml": "yaml",
    ".toml": "toml",
    ".service": "ini",
    ".timer": "ini",
    "hardened.conf": "ini",
    "Dockerfile": "dockerfile",
    "Caddyfile": "caddyfile",
    "nginx.conf": "nginx",
}


def fenced(name: str) -> str:
    """A file of this repository as a block of code."""
    known = (language for end, language in _LANGUAGES.items() if name.endswith(end))
    return f"```{next(known, '')}\n{(ROOT / name).read_text()}```"


# As tests/test_docs.py has the other parts of pages that are made: page and what makes it.
FILES: Final[Mapping[str, tuple[str, Callable[[], str]]]] = {
    name: (page, partial(fenced, name)) for name, page in _PAGES.items()
}
