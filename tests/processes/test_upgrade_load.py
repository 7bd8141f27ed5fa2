"""Upgrades under load: nobody is turned away, nobody is cut off, and no byte is lost or doubled."""

from __future__ import annotations

import os

from tests.processes.running import WorkersTestCase
from tests.processes.streams import Load
from tests.processes.upgrading import Upgrading

_UPGRADES = int(os.environ.get("TXMUX_UPGRADES", "10"))
_STREAMS = 50


class LoadTest(WorkersTestCase):
    """Long streams live through all upgrades, while short connections come and go."""

    def assert_unnoticed(self, settings: str, times: int) -> None:
        """Upgrade so often, and compare what the streams and the log know of each other."""
        load = Load(_STREAMS)
        rules = f"[listen public]\nendpoint = 127.0.0.1:0\ndefault = 127.0.0.1:{load.server}\n"
        mux = Upgrading(self.folder, rules, settings)
        self.addCleanup(mux.kill)
        inodes = mux.inodes()
        load.start(mux.port)
        for _ in range(times):
            mux.upgrade()
        self.assertEqual(mux.inodes(), inodes)
        load.finish()
        self.assertEqual(load.problems, [])
        lines = {line["client"]: line for line in mux.take(_STREAMS + load.short)}
        for stream in load.streams:
            line = lines[stream.client]
            self.assertEqual((line["bytes_in"], line["bytes_out"]), (stream.sent, stream.answered))
        self.assertEqual({line["reason"] for line in lines.values()}, {"done"})
        self.assertGreater(load.short, 10 * times)
        mux.stop()

    def test_one_process(self) -> None:
        """With one process."""
        self.assert_unnoticed("", _UPGRADES)

    def test_workers(self) -> None:
        """With several."""
        self.assert_unnoticed("workers = 2", max(2, _UPGRADES // 4))
