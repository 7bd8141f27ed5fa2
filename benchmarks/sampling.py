"""A sampling profiler over what a worker does: where does the time of a process go while it works?

Run as ``python benchmarks/sampling.py --seconds 10 --rules rules.ini``, put load on the service meanwhile, and read the
two tables it prints: time in each function itself, and in each with all that it calls. The samples are taken by a
timer of the process's own processor time, so waiting is not counted and the work is hardly disturbed.
"""

from __future__ import annotations

import argparse
import collections
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from txmux import EmbeddedService, load

if TYPE_CHECKING:
    from types import FrameType

_INTERVAL = 0.001  # seconds of processor time


class Samples:
    """Counts of functions that were running."""

    def __init__(self) -> None:
        self.total = 0
        self.itself: collections.Counter[str] = collections.Counter()
        self.with_calls: collections.Counter[str] = collections.Counter()

    def take(self, _number: int, frame: FrameType | None) -> None:
        """Note who runs now."""
        self.total += 1
        seen = set()
        if frame is not None:
            self.itself[_name(frame)] += 1
        while frame is not None:
            seen.add(_name(frame))
            frame = frame.f_back
        self.with_calls.update(seen)

    def print(self, count: int) -> None:
        """Print both tables."""
        print(f"{self.total} samples, {self.total * _INTERVAL:.1f} s of processor time")
        for title, counter in (("itself", self.itself), ("with calls", self.with_calls)):
            print(f"\n   %  {title}")
            for name, samples in counter.most_common(count):
                print(f"{100 * samples / self.total:5.1f} {name}")


def _name(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname} ({'/'.join(code.co_filename.split('/')[-2:])})"


def main() -> None:
    """Serve in this process, with samples."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, default=40, help="lines of each table")
    parser.add_argument("--rules", required=True)
    options = parser.parse_args()

    from twisted.internet import reactor  # noqa: PLC0415 - importing it installs it

    service = EmbeddedService(load(Path(options.rules)))
    service.startService()
    samples = Samples()
    signal.signal(signal.SIGPROF, samples.take)
    signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)

    def stop() -> None:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        service.stopService().addBoth(lambda _: reactor.stop())

    reactor.callLater(options.seconds, stop)
    reactor.run()
    samples.print(options.count)


if __name__ == "__main__":
    main()
