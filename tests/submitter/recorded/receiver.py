"""A stand-in for `reelhook serve`: its sockets, its ready line, its health, and nothing else.

STAND_IN_EXIT=N makes it end with code N at once; STAND_IN_OTHER=1 makes its health name another.
"""

import json
import os
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TextIO

INSTANCE = secrets.token_hex(8)
SHOWN = "another" if os.environ.get("STAND_IN_OTHER") else INSTANCE


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/healthz"
        body = json.dumps({"status": "ok", "instance": SHOWN}).encode()
        self.send_response(200 if known else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def say(stream: TextIO, text: str) -> None:
    stream.write(text + "\n")
    stream.flush()


def main() -> None:
    say(sys.stderr, f"stand-in {os.getpid()}")
    if code := os.environ.get("STAND_IN_EXIT"):
        sys.exit(int(code))
    port, admin_port = int(os.environ["PORT"]), int(os.environ["REELHOOK_ADMIN_PORT"])
    servers = [ThreadingHTTPServer(("127.0.0.1", p), Health) for p in (port, admin_port)]
    ready = {
        "event": "ready",
        "url": f"http://127.0.0.1:{port}",
        "admin_url": f"http://127.0.0.1:{admin_port}",
        "public_url": os.environ.get("REELHOOK_PUBLIC_URL", ""),
        "instance": INSTANCE,
    }
    say(sys.stdout, "not the ready line\n" + json.dumps(ready))
    threading.Thread(target=servers[1].serve_forever, daemon=True).start()
    servers[0].serve_forever()


if __name__ == "__main__":
    main()
