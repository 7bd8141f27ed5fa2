"""Reloads under load: nobody is turned away, nobody is cut off, and no byte is lost or doubled."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.interop.mux import Mux
from tests.processes.running import WorkersTestCase
from tests.processes.streams import Load
from tests.processes.test_reload import listening_inodes

if TYPE_CHECKING:
    from collections.abc import Sequence

_RELOADS = int(os.environ.get("TXMUX_RELOADS", "40"))
_STREAMS = 50


class LoadTest(WorkersTestCase):
    """Long streams live through all reloads, while short connections come and go."""

    def assert_unnoticed(self, workers: Sequence[int], times: int) -> None:
        """Reload so often, good and bad files by turns, and compare what the streams and the log know of each other."""
        load = Load(_STREAMS)
        rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{load.server}\n"
        mux = Mux(self.folder, rules, f"workers = {workers[0]}")
        self.addCleanup(mux.child.end)
        if workers[0] > 1:
            mux.child.wait_for("workers that serve: ")
        self.pid = mux.child.pid
        file = next(mux.log.parent.glob("*.ini"))
        text = file.read_text()
        inodes = listening_inodes(self.pid)
        load.start(mux.port)
        opened = []
        for number in range(times):
            count = workers[number // 2 % len(workers)]
            changed = text.replace(f"workers = {workers[0]}", f"workers = {count}")
            more = f"[route r{number}]\nmatch = minecraft\nbackend = close\n"
            file.write_text(changed + more + ("[what]\n" if number % 2 else ""))
            told = mux.child.output.count(" reloaded")
            os.kill(self.pid, signal.SIGHUP)
            self.wait_for_more(mux, told)
            opened.append(len(list(Path(f"/proc/{self.pid}/fd").iterdir())))
        self.assertEqual(listening_inodes(self.pid), inodes)
        load.finish()
        self.assertEqual(load.problems, [])
        lines = {line["client"]: line for line in mux.take(_STREAMS + load.short)}
        for stream in load.streams:
            line = lines[stream.client]
            self.assertEqual((line["bytes_in"], line["bytes_out"]), (stream.sent, stream.answered))
        self.assertEqual({line["reason"] for line in lines.values()}, {"done"})
        self.assertGreater(load.short, times)
        output = mux.child.output
        self.assertEqual(output.count("rules reloaded"), (times + 1) // 2)
        self.assertEqual(output.count("rules not reloaded"), times // 2)
        self.opened = opened
        mux.stop()

    def wait_for_more(self, mux: Mux, told: int) -> None:
        """Wait until one more reload has been told of."""
        eventually(lambda: mux.child.output.count(" reloaded") > told, "the rules are reloaded")

    def test_one_process(self) -> None:
        """With one process."""
        self.assert_unnoticed([1], _RELOADS)
        self.assertLessEqual(max(self.opened[5:]) - min(self.opened[5:]), 2 * _STREAMS + 40)

    def test_workers(self) -> None:
        """With several, and with more and fewer of them."""
        self.assert_unnoticed([3, 2, 4], max(6, _RELOADS // 4))
