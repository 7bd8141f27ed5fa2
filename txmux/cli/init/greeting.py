"""What servers of this machine say by themselves."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from txmux.cli.init.listening import Listening

_PATIENCE = 0.5  # seconds
_ENOUGH = 256  # bytes
_AT_ONCE = 32


def greetings(found: Sequence[Listening]) -> dict[Listening, bytes]:
    """Connect to each, say nothing, and give the first bytes that come."""
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return dict(zip(found, threads.map(_greeting, found), strict=True))


def _greeting(one: Listening) -> bytes:
    deadline = time.monotonic() + _PATIENCE
    said = b""
    try:
        with socket.create_connection(one.reached_at, timeout=_PATIENCE) as client:
            while len(said) < _ENOUGH and (left := deadline - time.monotonic()) > 0:
                client.settimeout(left)
                data = client.recv(_ENOUGH - len(said))
                if not data:
                    break
                said += data
                if b"\n" in said:  # a line is enough to know it by
                    break
    except OSError:  # it does not want to be asked, or says nothing
        pass
    return said
