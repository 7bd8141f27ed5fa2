"""What a process is given at its start by the one that it takes the place of."""

import json
import os
import signal
import socket
import tempfile
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.changes import change_constants, change_environment
from tests.support.peers import pair
from txmux.errors import MuxError
from txmux.processes import liveness
from txmux.processes.upgrade.predecessor import Predecessor
from txmux.processes.upgrade.upgrades import Upgrades


class PredecessorTests(SynchronousTestCase):
    def hear(self, line: bytes, *sockets: socket.socket) -> Predecessor:
        own, end = socket.socketpair()
        self.addCleanup(end.close)
        with own:
            # It takes the first one as its own standard error stream.
            socket.send_fds(own, [line], [2, *(one.fileno() for one in sockets)])
        return Predecessor(end)

    def test_sockets_state_and_memory(self) -> None:
        # Sockets come by their keys, and the state.
        near, far = pair(self)
        values = {"ask": 1, "version": 2, "sockets": ["x"], "state": {"version": 1}}
        found = self.hear(json.dumps(values).encode() + b"\n", far)
        far.close()
        self.assertEqual((list(found.sockets), found.state), (["x"], {"version": 1}))
        near.send(b"hello")
        self.assertEqual(found.sockets["x"].recv(5), b"hello")
        found.sockets["x"].close()
        # The memory of limits counts only if it is the file that the old process has named: a version that does not know the variable
        # leaves it to others.
        with tempfile.TemporaryFile() as memory, tempfile.TemporaryFile() as other:
            own = os.fstat(memory.fileno()).st_ino
            cases: tuple[tuple[str, dict[str, int], object], ...] = (
                (str(memory.fileno()), {"file": own}, (memory.fileno(), {"file": own})),
                (str(other.fileno()), {"file": own}, None),
                (str(memory.fileno()), {}, None),
                ("99999", {"file": own}, None),
                ("", {"file": own}, None),
            )
            for number, limits, taken in cases:
                started = {"ask": 1, "version": 3, "sockets": [], "state": {"limits": limits}}
                found = self.hear(json.dumps(started).encode() + b"\n")
                change_environment(self, TXMUX_LIMITS=number)
                self.assertEqual(found.take_limits(), taken)
                self.assertNotIn("TXMUX_LIMITS", os.environ)

    def test_no_message(self) -> None:
        """Whatever else comes is told in one line, and no descriptor stays open."""
        for line in (
            *(b"", b"\n", b"{", b"x\n", b"null\n", b"[]\n", b"{}\n", b"[" * 9000 + b"\n"),
            *(
                b'{"ask":1,"version":2,"sockets":[],"state":{}}\n',
                b'{"ask":1,"version":2,"sockets":7,"state":{}}\n',
                b'{"ask":1,"version":2,"sockets":["a","b"],"state":{}}\n',
            ),
            b'{"ask":1,"version":2,"sockets":["a"],"state":7}\n',
        ):
            near, far = pair(self)
            own, end = socket.socketpair()
            with own, end:
                if line:
                    socket.send_fds(own, [line], [2, far.fileno()])
                own.shutdown(socket.SHUT_WR)
                far.close()
                error = self.assertRaises(MuxError, Predecessor, end)
            self.assertRegex(str(error), "^the old process handed nothing over: .+$")
            self.assertEqual(near.recv(1), b"")

    def test_killed_once(self) -> None:
        """One that hangs is killed, and need not have ended a second later: it may wait for a disk. Others that keep workers may idle."""
        clock, killed = MemoryReactorClock(), list[tuple[int, int]]()
        # A system that does not show what a process does, and nobody is killed.
        change_constants(self, liveness, _PROC="/none")
        change_constants(self, os, kill=lambda *of: killed.append(of))
        for version, kills in ((2, 0), (7, 0), (3, 1)):
            found = self.hear(b'{"ask":1,"version":%d,"sockets":[],"state":{}}\n' % version)
            found.attach(clock, {}, lambda: None)
            found.kill_if_it_hangs(clock, lambda: False)
            clock.pump([1.0] * 200)
            self.assertEqual(killed, [(os.getppid(), signal.SIGKILL)] * kills)


class ArrivalTest(SynchronousTestCase):
    def test_waits(self) -> None:
        """All who wait go on when all are here, or after a while; nobody waits after that, nor before any are to come."""
        nothing: Any = None
        for ends in (True, False):
            clock = Clock()
            upgrades = Upgrades(clock, *[nothing] * 5)
            self.successResultOf(upgrades.connections_arrived())
            upgrades.expect_connections()
            clock.advance(9)
            waiting = [upgrades.connections_arrived() for _ in range(2)]
            clock.advance(60)
            for one in waiting:
                self.assertNoResult(one)
            if ends:
                upgrades.expect_no_more()
            else:
                clock.advance(1)
            for one in (*waiting, upgrades.connections_arrived()):
                self.successResultOf(one)
