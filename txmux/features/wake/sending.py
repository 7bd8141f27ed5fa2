"""Sends what starts a server: by Wake-on-LAN, or by an HTTP request."""

from __future__ import annotations

import socket
from typing import Any

from txmux.errors import MuxError
from txmux.features.wake.reading import Wake
from txmux.net.http import request

_PATIENCE = 20.0  # seconds for an answer


async def send(wake: Wake, reactor: Any) -> None:
    """Send it; raises `OSError`, or `MuxError`."""
    if wake.method == "wol":
        _send_magic_packet(wake)
        return
    url, address = wake.target, None
    if url.startswith("unix:"):
        address, _, path = url.removeprefix("unix:").partition(":")
        url = f"http://localhost{path}"
    answer = await request(
        reactor, wake.method, url, {}, seconds=_PATIENCE, most=None, address=address
    )
    if not 200 <= answer.status < 300:
        raise MuxError(f"the answer is {answer.status}")


def _send_magic_packet(wake: Wake) -> None:
    """Send six bytes of FF and the MAC address sixteen times (AMD, Magic Packet Technology, publication 20213)."""
    packet = b"\xff" * 6 + bytes.fromhex(wake.target.replace(":", "")) * 16
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(packet, wake.broadcast)
