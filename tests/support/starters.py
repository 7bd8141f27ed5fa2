"""Processes of which workers are forked, for services that run in the process of the tests: each takes milliseconds to start."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from txmux.processes.environment import environment
from txmux.processes.forking import Child, exit_after


def starter() -> Child:
    """Give one that nobody has used yet."""
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        socket.send_fds(_mother, [b"start"], [other.fileno()])
    return Child(int(_mother.recv(64)), own)


def _start() -> socket.socket:
    own, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with other:
        subprocess.Popen(
            [sys.executable, "-m", __name__, str(other.fileno())],
            stdin=subprocess.DEVNULL,
            env=environment(),
            pass_fds=[other.fileno()],
        )
    return own


def _main(connection: socket.socket) -> None:
    """Fork starters until the tests have ended."""
    from txmux.net.tls.deferred import import_reactor_without_tls  # noqa: PLC0415 - not in the tests

    import_reactor_without_tls()
    from txmux.processes.workers import starter as module  # noqa: PLC0415 - as above

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        packet, descriptors, _, _ = socket.recv_fds(connection, 64, 1)
        if not packet:
            return
        pid = os.fork()
        if not pid:
            connection.close()
            end = socket.socket(fileno=descriptors[0])
            exit_after(lambda end=end: module.main(end))  # type: ignore[misc]
        for descriptor in descriptors:
            os.close(descriptor)
        connection.send(b"%d" % pid)


if __name__ == "__main__":
    _main(socket.socket(fileno=int(sys.argv[1])))
else:
    _mother = _start()  # before tests are watched for what they leave behind
