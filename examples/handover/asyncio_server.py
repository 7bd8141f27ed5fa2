"""An asyncio server of clients whose sockets txmux hands over: it tells each its address.

``python asyncio_server.py /run/handover/api.sock``
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
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
    listening.settimeout(0)
    return listening


def take(giver: socket.socket) -> tuple[socket.socket, dict[str, object]]:
    """Take the socket of one client, and its message."""
    with giver:
        credentials = giver.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, user, _ = struct.unpack("3i", credentials)
        if user not in {0, os.geteuid()}:
            raise PermissionError(f"user {user} may not hand over sockets")
        giver.settimeout(5)
        message, descriptors, _, _ = socket.recv_fds(giver, LONGEST, 1)
        clients = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        try:
            (client,) = clients
            told = json.loads(message)
            giver.send(b"taken")  # txmux waits for that, and then closes its own descriptor
        except BaseException:
            for client in clients:
                client.close()
            raise
    client.settimeout(0)
    return client, told


async def serve(giver: socket.socket) -> None:
    """Serve one client."""
    try:
        # The message is there at once, or nearly.
        client, told = await asyncio.to_thread(take, giver)
    except (OSError, ValueError) as problem:
        print(f"no client was taken: {problem}", flush=True)
        return
    reader, writer = await asyncio.open_connection(sock=client)
    try:
        # The bytes by which txmux has recognised the client are still in its socket.
        await reader.readuntil(b"\r\n\r\n")
        host, port, *_ = writer.get_extra_info("peername")
        text = f"Hello by asyncio, {host} port {port}, who asked for {told['facts']['host']}.\n"
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
        writer.write(f"{head}{text}".encode())
        await writer.drain()
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client is gone, or asks for too much
    finally:
        writer.close()


async def main(path: Path) -> None:
    """Serve until interrupted."""
    loop, clients = asyncio.get_running_loop(), set()
    with listen(path) as listening:
        print(f"clients are taken at {path}", flush=True)
        while True:
            giver, _ = await loop.sock_accept(listening)
            client = asyncio.create_task(serve(giver))
            clients.add(client)
            client.add_done_callback(clients.discard)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
