"""Reloads that something comes in between: a worker that cannot, or is killed, and clients that are half-way."""

import errno
import os
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.processes.reloading import leading_to, listening_inodes, with_more, with_workers
from tests.support.kit import WorkersTestCase, customize, eventually, free_port
from tests.support.proc import halted, open_files, workers_of

pytestmark = [pytest.mark.whole, pytest.mark.by_turns(each=True)]
_MORE = with_more("[listen other]\nendpoint = 127.0.0.1:0\n")
_UNTIL_REPLACED = """
import sys
if "txmux" in str(sys.orig_argv):
    from txmux.processes.worker.process import WorkerProcess
    from txmux.serving.serving import Serving
    ask, prepare = WorkerProcess._prepare, Serving.prepare_in_steps

    def note(self, serving, *rest, **values):
        serving.waits = self._number < 3
        return ask(self, serving, *rest, **values)

    def slowly(self, *rest, **values):
        self._log.info("it prepares")
        while self.waits and self.listening_ports.keys():
            yield
        return (yield from prepare(self, *rest, **values))

    WorkerProcess._prepare, Serving.prepare_in_steps = note, slowly
"""


class RoughTest(WorkersTestCase):
    def test_refused_by_one_only(self) -> None:
        """What only one worker cannot do changes nothing in any; when it can, all change."""
        mux, server = self.start_relaying("workers = 3")
        other = self.backend()
        supervisor, victim = mux.pid, workers_of(mux.pid)[1]
        before = (
            listening_inodes(supervisor),
            {pid: open_files(pid) for pid in workers_of(supervisor)},
        )
        number = int(mux.child.output.count("serving with"))
        limits = resource.prlimit(victim, resource.RLIMIT_NOFILE)
        most = max(int(path.name) for path in Path(f"/proc/{victim}/fd").iterdir())
        resource.prlimit(victim, resource.RLIMIT_NOFILE, (most, limits[1]))

        self.assertIn("reload failed", mux.reload(leading_to(other), _MORE))
        mux.child.wait_for("Too many open files")
        resource.prlimit(victim, resource.RLIMIT_NOFILE, limits)
        for _ in range(9):
            self.relayed(mux, server)
        self.assertEqual(listening_inodes(supervisor), before[0])
        self.assertEqual([*before[1]], workers_of(supervisor))
        self.assertEqual(mux.child.output.count("serving with"), number)
        self.assertIn("listener other opened", mux.reload())
        for _ in range(9):
            self.relayed(mux, other)

    def test_new_addresses_listen_from_the_commit_on(self) -> None:
        """A reload that is refused has accepted nobody there, whom it would cut off."""
        mux, server = self.start_relaying("workers = 2")
        port, path = free_port(), self.folder / "new.sock"
        more = f"[listen other]\nendpoint = 127.0.0.1:{port}\n    unix:{path}\n"
        places = ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, str(path)))
        with halted(workers_of(mux.pid)[:1]):
            before = mux.ask_to_reload(with_more(more))
            eventually(path.exists, "the addresses are taken")
            for family, place in places:
                with socket.socket(family) as client:
                    self.assertEqual(client.connect_ex(place), errno.ECONNREFUSED)
        self.assertIn("listener other opened", mux.reloaded(before))
        for family, place in places:
            with socket.socket(family) as client:
                client.connect(place)
                client.sendall(b"x")
                with self.accept_from(server, b"x"):
                    pass

    def test_worker_that_prepares_is_replaced(self) -> None:
        """It may have closed its ports before it is ready to change."""
        customize(self, _UNTIL_REPLACED)
        mux, server = self.start_relaying()
        pair, other = self.relayed(mux, server), self.backend()
        old = workers_of(mux.pid)
        before = mux.ask_to_reload(leading_to(other), _MORE)
        mux.child.wait_for("it prepares(.|\\n)*it prepares")
        for pid in old:
            os.kill(pid, signal.SIGTERM)
        self.assertIn("listener other opened", mux.reloaded(before))
        self.all_end([pair])
        for _ in range(4):
            self.relayed(mux, other)
        self.assertNotIn("Traceback", mux.child.output)

    def test_ended_meanwhile(self) -> None:
        """SIGTERM during a reload ends the service when the reload is over; connected clients may finish."""
        for workers, count in ((2, 2), (2, 1), (1, 2)):
            mux, server = self.start_relaying(f"workers = {workers}")
            client, end = self.relayed(mux, server)
            with halted(workers_of(mux.pid)[:1]):
                mux.ask_to_reload(with_workers(count), _MORE)
                mux.terminate()
            eventually(lambda m=mux: "draining connections: 1" in m.child.output, "it drains")  # type: ignore[misc]
            self.all_end([(client, end)])
            self.assertEqual(mux.child.wait(), -signal.SIGTERM)
            self.assertNotIn("Traceback", mux.child.output)
            self.assertNotIn("is killed", mux.child.output)
            self.assertEqual(mux.take_one()["reason"], "done")
