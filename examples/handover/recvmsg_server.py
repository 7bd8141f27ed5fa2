"""Run a program for each client whose socket txmux hands over, as inetd does.

``python recvmsg_server.py /run/handover/ssh.sock /usr/sbin/sshd -i``

It needs no package: what it does can be done in any language that has ``recvmsg()``.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

LONGEST = 65536  # bytes of a message


def listen(path: Path) -> socket.socket:
    """Listen at a path, for processes of the same user alone."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    listening.bind(str(path))
    os.umask(before)
    listening.listen(128)
    return listening


def take(giver: socket.socket) -> tuple[int, dict[str, object]]:
    """Take the socket of one client, and its message."""
    credentials = giver.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    _, user, _ = struct.unpack("3i", credentials)
    if user not in {0, os.geteuid()}:
        raise PermissionError(f"user {user} may not hand over sockets")
    giver.settimeout(5)
    message, descriptors, _, _ = socket.recv_fds(giver, LONGEST, 1)
    try:
        (descriptor,) = descriptors
        return descriptor, json.loads(message)
    except ValueError:
        for descriptor in descriptors:
            os.close(descriptor)
        raise


def main(path: Path, command: list[str]) -> None:
    """Serve until interrupted."""
    running: list[subprocess.Popen[bytes]] = []
    with listen(path) as listening:
        print(f"clients are taken at {path}", flush=True)
        while True:
            giver, _ = listening.accept()
            with giver:
                try:
                    client, told = take(giver)
                    giver.send(b"taken")  # txmux waits for that, and then closes its own descriptor
                except (OSError, ValueError) as problem:
                    print(f"no client was taken: {problem}", flush=True)
                    continue
            print(f"{told['client']} came by {told['listener']}: {told['facts']}", flush=True)
            os.set_blocking(client, True)
            running = [child for child in running if child.poll() is None]
            child = subprocess.Popen(command, stdin=client, stdout=client)  # noqa: S603 - it is our caller's
            running.append(child)
            os.close(client)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
