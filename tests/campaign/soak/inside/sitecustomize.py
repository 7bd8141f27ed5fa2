"""Has each Python process that finds this file tell on a signal how many timers and readers its reactor has."""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any


def _tell(*_: object) -> None:
    reactor: Any = sys.modules.get("twisted.internet.reactor")
    timers: Any = sys.modules.get("txmux.sockets.timers")
    told = {"timers": 0, "readers": 0}
    if reactor is not None:
        told["timers"] = len(reactor.getDelayedCalls())
        told["readers"] = len(reactor.getReaders())
    if timers is not None:
        own = [one for one in gc.get_objects() if type(one) is timers.Timers]
        told["timers"] += sum(len(one.getDelayedCalls()) for one in own)
    path = Path(os.environ["SOAK_FOLDER"]) / f"{os.getpid()}.state"
    path.with_suffix(".new").write_text(json.dumps(told))
    path.with_suffix(".new").rename(path)


if "SOAK_FOLDER" in os.environ:
    signal.signal(signal.SIGRTMIN, _tell)
