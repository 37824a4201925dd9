"""Has the server run a command with this process's arguments, environment, folder and files.

Started without site and without the repository on its path, so it takes some 15 ms. It ends as the
command did; if it is killed, the command is.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def main() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(sys.argv[1])
        order = {"argv": sys.argv[2:], "env": dict(os.environ), "cwd": os.getcwd()}
        socket.send_fds(server, [json.dumps(order).encode() + b"\n"], [0, 1, 2])
        with server.makefile() as told:
            command = int(told.readline())
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, _frame: os.kill(command, number))
            status = os.waitstatus_to_exitcode(int(told.readline()))
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    sys.exit(status)


if __name__ == "__main__":
    main()
