"""Reloads under load: no client is refused, no connection or byte is lost, none is doubled, and nothing grows.

The long form, with 1,000 reloads of each kind at 200 connections a second, and figures on the standard output::

    TXMUX_RELOADS=1000 python -m pytest -s tests/processes/test_reload_load.py
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest

from tests.processes.reloading import listening_inodes
from tests.processes.streams import Load
from tests.support.kit import Service, WorkersTestCase
from tests.support.proc import family_of, holders, open_files, workers_of

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]

_IS_LONG = "TXMUX_RELOADS" in os.environ
_RELOADS = int(os.environ.get("TXMUX_RELOADS", "24"))
_CHANGES = int(os.environ.get("TXMUX_RELOADS", "10"))
"""Reloads that start and end processes."""
_STREAMS = 50
_VISITORS = 12 if _IS_LONG else 4
_GROWTH = 8 * 1024
"""KiB by which the memory of the supervisor may grow, once it has been through some reloads."""


@attrs.frozen
class Usage:
    """What a process has, or all of a service together; memory in KiB, shared pages by shares.

    Pages of programs and libraries are left out: other processes of the machine have shares in them, and come and go.
    """

    memory: int
    descriptors: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        folder = Path(f"/proc/{pid}")
        found = dict(
            line.split(":", 1)
            for name in ("smaps_rollup", "status")
            for line in (folder / name).read_text().splitlines()
            if ":" in line
        )
        opened = len(list((folder / "fd").iterdir()))
        memory = sum(int(found[name].split()[0]) for name in ("Pss_Anon", "Pss_Shmem"))
        return cls(memory, opened, int(found["Threads"]))


def measured(pid: int) -> tuple[Usage, Usage]:
    each = []
    for one in family_of(pid):
        with contextlib.suppress(OSError, KeyError):  # it has ended
            each.append(Usage.of(one))
    names = ("memory", "descriptors", "threads")
    return each[0], Usage(*(sum(getattr(one, name) for one in each) for name in names))


class LoadTest(WorkersTestCase):
    def assert_unnoticed(self, workers: Sequence[int], times: int) -> None:
        """Reload this often, good and bad files by turns, and compare what the streams and the log know of each other."""
        load = Load(_STREAMS, _VISITORS)
        # Who waits for a reload says nothing until then, and workers may take long to start.
        listener = "[listen public]\nendpoint = 127.0.0.1:0\ndetect_timeout = 10m\n"
        rules = f"{listener}default = 127.0.0.1:{load.server}\n"
        mux = self.start(rules, f"workers = {workers[0]}")
        mux.child.allow(600.0 + 10 * times)
        self.pid = pid = mux.child.pid
        file = mux.file
        text = file.read_text()
        inodes = listening_inodes(pid)
        load.start(mux.port)
        usages = []
        began = time.monotonic()
        for number in range(times):
            count = workers[number // 2 % len(workers)]
            changed = text.replace(f"workers = {workers[0]}", f"workers = {count}")
            more = f"[route r{number}]\nmatch = minecraft\nbackend = close\n"
            file.write_text(changed + more + ("[what]\n" if number % 2 else ""))
            waiting, told = self.waiting_at_the_switch(mux)
            with waiting:
                mux.reloaded(told)
                self.assert_answered(mux, waiting, number)
            if number % max(1, times // 20) == 0:
                usages.append((number, len(workers_of(pid)), *measured(pid)))
        seconds = time.monotonic() - began
        self.assertEqual(listening_inodes(pid), inodes)
        load.finish()
        self.assertEqual(load.problems, [])
        lines = {line["client"]: line for line in mux.take(_STREAMS + load.short + times)}
        for stream in load.streams:
            line = lines[stream.client]
            self.assertEqual((line["bytes_in"], line["bytes_out"]), (stream.sent, stream.answered))
        self.assertEqual({line["reason"] for line in lines.values()}, {"done"})
        self.assertGreater(load.short, 0)
        output = mux.child.output
        self.assertEqual(output.count("rules reloaded"), (times + 1) // 2)
        self.assertEqual(output.count("reload failed"), times // 2)
        self.tell(workers, times, load.short / seconds, usages)
        self.assert_flat(usages)
        mux.stop()

    def assert_answered(self, mux: Service, waiting: socket.socket, number: int) -> None:
        waiting.sendall(b"short   ")
        try:
            self.assertEqual(waiting.recv(8), b"short   ")
        except (OSError, AssertionError) as problem:
            told = f"{problem!r} after reload {number}; {holders(waiting)}"
            children = [(pid, len(open_files(pid))) for pid in family_of(mux.child.pid)]
            self.fail(f"{told}\nprocesses and their files: {children}\n{mux.child.output[-8000:]}")

    def waiting_at_the_switch(self, mux: Service) -> tuple[socket.socket, int]:
        """Connect a client that nobody has accepted when the signal comes; tell how many reloads there were, too."""
        pids = family_of(mux.child.pid)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        try:
            return mux.connect(), mux.ask_to_reload()
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def tell(
        self,
        workers: Sequence[int],
        times: int,
        rate: float,
        usages: Sequence[tuple[int, int, Usage, Usage]],
    ) -> None:
        if not _IS_LONG:
            return
        out = sys.stdout.write
        out(f"\n{times} reloads, workers {workers}: {rate:.0f} short connections a second\n")
        out(" reload  workers   supv: KiB  fds  threads    all: KiB  fds  threads\n")
        for number, count, first, every in usages:
            own = f"{first.memory:10} {first.descriptors:4} {first.threads:8}"
            sums = f"{every.memory:10} {every.descriptors:4} {every.threads:8}"
            out(f"{number:7} {count:8}  {own}  {sums}\n")

    def assert_flat(self, usages: Sequence[tuple[int, int, Usage, Usage]]) -> None:
        some = [first for _, _, first, _ in usages[len(usages) // 4 :]]
        half = len(some) // 2
        before, after = some[:half], some[half:]
        grown = min(one.memory for one in after) - min(one.memory for one in before)
        self.assertLess(grown, _GROWTH)
        # How many connections there are just then makes a difference, and whether a worker is being started.
        allowed = 2 * _STREAMS + 40
        most = max(one.descriptors for one in before) + allowed
        self.assertLess(min(one.descriptors for one in after), most)
        self.assertLessEqual(min(one.threads for one in after), max(one.threads for one in before))

    def test_one_worker(self) -> None:
        self.assert_unnoticed([1], _RELOADS)

    def test_workers(self) -> None:
        self.assert_unnoticed([3], _RELOADS)

    def test_number_of_workers(self) -> None:
        self.assert_unnoticed([3, 2, 1, 4, 1], _CHANGES)
