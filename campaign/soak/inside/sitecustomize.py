"""Has each Python process that finds this file tell on a signal how many timers and readers its reactor has."""

from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import sys
from pathlib import Path
from typing import Any

_PLACES, _SIZE = 512, 64
"""As in `campaign.soak.state`."""


def _tell(*_: object) -> None:
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    timers: Any = sys.modules.get("txmux.net.sockets.timers")
    told = {"timers": 0, "readers": 0}
    if reactor is not None:
        told["timers"] = len(reactor.getDelayedCalls())
        told["readers"] = len(reactor.getReaders())
    if timers is not None:
        own = [one for one in gc.get_objects() if type(one) is timers.Timers]
        told["timers"] += sum(len(one.getDelayedCalls()) for one in own)
    place = os.getpid() % _PLACES * _SIZE
    _memory[place : place + _SIZE] = json.dumps(told).encode().ljust(_SIZE)


if "SOAK_TOLD" in os.environ:
    # Forked processes share it; workers may open no file.
    with Path(os.environ["SOAK_TOLD"]).open("r+b") as file:
        _memory = mmap.mmap(file.fileno(), _PLACES * _SIZE)
    signal.signal(signal.SIGRTMIN, _tell)
