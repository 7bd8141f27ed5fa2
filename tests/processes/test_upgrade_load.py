"""Upgrades under load: no client is refused, no connection or byte is lost, and none is doubled."""

import os
import statistics
import sys
import time

import attrs
import pytest

from tests.processes.streams import Load
from tests.support.kit import Record, Service, WorkersTestCase
from tests.support.proc import family_of, resident

pytestmark = [pytest.mark.whole, pytest.mark.by_turns]

_UPGRADES = int(os.environ.get("TXMUX_UPGRADES", "6"))
_STREAMS = int(os.environ.get("TXMUX_STREAMS", "50"))
_ENOUGH = 30
"""Upgrades after which memory tells something."""


@attrs.define
class _Sizes:
    """What the processes had, one after the other, when they had taken over."""

    memory: list[int] = attrs.Factory(list)
    descriptors: list[int] = attrs.Factory(list)

    def note(self, mux: Service) -> None:
        self.memory.append(sum(map(resident, family_of(mux.pid))))
        self.descriptors.append(mux.descriptors())


class LoadTest(WorkersTestCase):
    def assert_unnoticed(self, settings: str, times: int) -> None:
        load = Load(_STREAMS, visitors=max(4, _STREAMS // 40))
        rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{load.server}\n"
        mux = self.upgrading(rules, settings)
        inodes = mux.inodes()
        load.start(mux.port)
        began = time.monotonic()
        sizes = _Sizes()
        for _ in range(times):
            mux.upgrade()
            sizes.note(mux)
        seconds = time.monotonic() - began
        self.assertEqual(mux.inodes(), inodes)
        load.finish()
        self.assertEqual(load.problems, [])
        self.assert_told(load, mux.take(_STREAMS + load.short), seconds)
        self.assertGreater(load.short, 10 * times)
        self.assert_flat(sizes)
        if times >= _ENOUGH:
            sys.stderr.write(
                f"{times} upgrades in {seconds:.0f} s, {load.short} short connections; {load.streams[0]} and others; "
                f"memory {sizes.memory}, descriptors {sizes.descriptors}\n"
            )
        mux.stop()

    def assert_told(self, load: Load, lines: list[Record], seconds: float) -> None:
        """See that each connection has one line, and that those of streams have the bytes and the time of the whole life."""
        told = {line["client"]: line for line in lines}
        for stream in load.streams:
            line = told[stream.client]
            self.assertEqual((line["bytes_in"], line["bytes_out"]), (stream.sent, stream.answered))
            self.assertGreater(line["duration_ms"], 1000 * seconds)
        self.assertEqual({line["reason"] for line in lines}, {"done"})
        self.assertEqual(len({line["id"] for line in lines}), len(lines))

    def assert_flat(self, sizes: _Sizes) -> None:
        if len(sizes.memory) >= _ENOUGH:
            for values in (sizes.memory, sizes.descriptors):
                first, last = statistics.median(values[:10]), statistics.median(values[-10:])
                self.assertLess(last, 1.05 * first)

    def test_one_worker(self) -> None:
        self.assert_unnoticed("", _UPGRADES)

    def test_workers(self) -> None:
        self.assert_unnoticed("workers = 2", max(2, _UPGRADES // 4))
