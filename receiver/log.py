"""Floor 2, edges: one canonical line a request or attempt, on stderr. structlog only.

Lines carry route names, ids and the token's `jti`; never a query string, a secret or a body.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

Log = structlog.typing.FilteringBoundLogger


def configure(level: str, style: str) -> Log:
    """The receiver's logger. `style` is `json` or `console`; foreign loggers are kept quiet."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(name)s: %(message)s")
    # httpx tells whole URLs at INFO; ours carry tokens.
    for name in ("httpx", "httpcore", "aiohttp", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)
    json = style == "json"
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.lower()),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    log: Log = structlog.get_logger()
    return log
