"""Flows of UDP while the service changes: each goes on with its socket, and every datagram is answered.

The long form, with 200 reloads and 20 upgrades while 500 flows talk, and figures on the standard output::

    TXMUX_RELOADS=200 TXMUX_UPGRADES=20 TXMUX_FLOWS=500 python -m pytest -s tests/processes/test_datagrams_load.py
"""

import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes.datagrams import DatagramLoad
from tests.support.kit import Service, WorkersTestCase, eventually
from tests.support.proc import workers_of

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]

_IS_LONG = "TXMUX_RELOADS" in os.environ
_RELOADS = int(os.environ.get("TXMUX_RELOADS", "10"))
_UPGRADES = int(os.environ.get("TXMUX_UPGRADES", "3"))
_FLOWS = int(os.environ.get("TXMUX_FLOWS", "200"))
_RULES = "[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:%d\n"


class LoadTest(WorkersTestCase):
    def begin_talking(self, settings: str, patience: float = 60.0) -> tuple[Service, DatagramLoad]:
        load = DatagramLoad(_FLOWS)
        load.patience = patience
        mux = self.upgrading(_RULES % load.server, f"{settings}\ndrain_timeout = 1s")
        load.start(mux.port)
        return mux, load

    def assert_unnoticed(self, mux: Service, load: DatagramLoad, what: str) -> None:
        load.finish()
        if _IS_LONG:
            sys.stdout.write(
                f"\n{what}: {load.asked} datagrams of {_FLOWS} flows, problems {len(load.problems)}, latest {load.latest:.3f} s\n"
            )
        self.assertEqual(load.problems[:5], [])
        self.assertEqual([talk for talk in load.talks if len(talk.servers) != 1], [])
        mux.stop()
        lines = {line["client"]: line for line in mux.take(_FLOWS)}
        for talk in load.talks:
            line = lines[talk.client]
            self.assertEqual(
                (line["datagrams_in"], line["datagrams_out"]), (talk.asked, talk.answered)
            )

    def reload(self, settings: str, times: int, workers: Sequence[int] = ()) -> None:
        mux, load = self.begin_talking(settings)
        text = mux.file.read_text()
        began = time.monotonic()
        for number in range(times):
            changed = text
            if workers:
                changed = text.replace(settings, f"workers = {workers[number % len(workers)]}")
            more = f"[route r{number}]\nmatch = snmp\nbackend = close\nunder = u\n"
            is_bad = number % 2 and not workers
            mux.file.write_text(changed + more + ("[what]\n" if is_bad else ""))
            mux.reload()
        seconds = time.monotonic() - began
        self.assertEqual(
            mux.child.output.count("rules reloaded"), times if workers else (times + 1) // 2
        )
        self.assert_unnoticed(mux, load, f"{times} reloads in {seconds:.0f} s, {settings}")

    def test_reload(self) -> None:
        self.reload("workers = 1", _RELOADS)

    def test_reload_workers(self) -> None:
        self.reload("workers = 2", _RELOADS)

    def test_number_of_workers(self) -> None:
        self.reload("workers = 1", 8 if _IS_LONG else 4, (2, 1, 3, 1))

    def upgrade(self, settings: str, times: int) -> None:
        mux, load = self.begin_talking(settings)
        began = time.monotonic()
        for _ in range(times):
            mux.upgrade()
        seconds = time.monotonic() - began
        self.assert_unnoticed(mux, load, f"{times} upgrades in {seconds:.0f} s, {settings}")

    def test_upgrade(self) -> None:
        self.upgrade("workers = 1", _UPGRADES)

    def test_upgrade_workers(self) -> None:
        self.upgrade("workers = 2", max(2, _UPGRADES // 2))

    def test_worker_is_replaced(self) -> None:
        """The worker that reads datagrams is asked to end: its flows go on in another one."""
        mux, load = self.begin_talking("workers = 2")
        for _ in range(2):
            before = workers_of(mux.pid)
            os.kill(self.reader(mux), signal.SIGTERM)
            eventually(
                lambda before=before: (
                    len({*workers_of(mux.pid)} - {*before}) == 1  # type: ignore[misc]
                    and len(workers_of(mux.pid)) == len(before)
                ),
                "another worker has taken its place",
            )
        self.assert_unnoticed(mux, load, "a worker is replaced")

    def test_worker_is_killed(self) -> None:
        """When that worker crashes, another one reads at once: its flows begin anew, and no client waits for long."""
        # Of that time, the other one needs a hundredth.
        mux, load = self.begin_talking("workers = 2", patience=5.0)
        lost = len(load.talks)
        mux.kill(self.reader(mux))
        load.finish()
        self.assertLessEqual(len(load.problems), 2 * lost)
        self.assertEqual([talk for talk in load.talks if len(talk.servers) > 2], [])
        mux.stop()
        lines = mux.take(len(load.talks))
        self.assertEqual({line["client"] for line in lines}, {talk.client for talk in load.talks})

    def reader(self, mux: Service) -> int:
        """Tell which worker has the flows: it has a socket for each."""
        return max(workers_of(mux.pid), key=lambda pid: len([*Path(f"/proc/{pid}/fd").iterdir()]))
