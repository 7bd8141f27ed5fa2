"""Sends what starts a server: by Wake-on-LAN, by systemd, or by an HTTP request."""

import os
import shutil
import socket
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as LateError
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol

from txmux.errors import MuxError, printable
from txmux.features.wake import Wake
from txmux.net.http import request

_PATIENCE = 20.0  # seconds for an answer
_LONGEST_START = 300.0
"""Seconds to wait for a unit. systemd's own limit, `TimeoutStartSec`, is usually 90; when txmux gives up, the unit may still start."""
_MOST_ERRORS = 4096  # bytes


async def send(wake: Wake, reactor: Any) -> None:
    """Send it; raises `OSError`, or `MuxError`."""
    if wake.method == "wol":
        _send_magic_packet(wake)
        return
    if wake.method == "systemd":
        await _start_unit(wake.target, reactor)
        return
    url, address = wake.target, None
    if url.startswith("unix:"):
        address, _, path = url.removeprefix("unix:").partition(":")
        url = f"http://localhost{path}"
    answer = await request(
        reactor,
        wake.method,
        url,
        {},
        seconds=_PATIENCE,
        most=None,
        address=address,
        owner=wake.owner,
    )
    if not 200 <= answer.status < 300:
        raise MuxError(f"the answer is {answer.status}")


async def _start_unit(unit: str, reactor: Any) -> None:
    """Start a unit, and wait until systemd says that it has started, or why not."""
    program = shutil.which("systemctl")
    if program is None:
        raise MuxError("there is no systemctl on this machine")
    run = _Run()
    arguments = [program, "--no-ask-password", "start", "--", unit]
    process = reactor.spawnProcess(run, program, arguments, {**os.environ})
    try:
        end = await run.ended.addTimeout(_LONGEST_START, reactor)
    except LateError:
        with suppress(ProcessExitedAlready):
            process.signalProcess("KILL")
        raise MuxError(f"it has not started within {_LONGEST_START:.0f} s") from None
    if end.exitCode != 0:
        how = f"signal {end.signal}" if end.signal else f"status {end.exitCode}"
        lines = run.errors.decode("utf-8", "replace").splitlines()
        raise MuxError(printable(lines[0] if lines else f"systemctl ended with {how}", 200))


class _Run(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[Any] = Deferred()
        self.errors = b""

    def errReceived(self, data: bytes) -> None:
        self.errors += data[: _MOST_ERRORS - len(self.errors)]

    def processEnded(self, reason: Any) -> None:
        self.ended.callback(reason.value)


def _send_magic_packet(wake: Wake) -> None:
    """Send six bytes of FF and the MAC address sixteen times (AMD, Magic Packet Technology, publication 20213)."""
    packet = b"\xff" * 6 + bytes.fromhex(wake.target.replace(":", "")) * 16
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.sendto(packet, wake.broadcast)
