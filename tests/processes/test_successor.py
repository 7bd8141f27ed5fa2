"""A new process that does not come to serve, and what it is given at its start."""

import errno
import itertools
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.changes import change_constants, change_environment
from tests.support.kit import VirtualTime, eventually, pair, reactor
from txmux.errors import MuxError
from txmux.net.channel import messages
from txmux.net.channel.channel import AnswerTimeoutError, Channel, attach
from txmux.net.channel.message import Message
from txmux.processes import liveness
from txmux.processes.liveness import ProcessActivity, activity_of
from txmux.processes.upgrade.predecessor import Predecessor
from txmux.processes.upgrade.upgrade import Successor, Upgrade, UpgradeError
from txmux.processes.upgrade.upgrades import Upgrades
from txmux.processes.upgrade.worker_transfers import Moved, settled

_READS = """\
import json, os, socket
end = socket.socket(fileno=int(os.environ["TXMUX_PREDECESSOR"]))
stream = end.makefile("rb")
def answer(**answer):
    number = json.loads(stream.readline())["ask"]
    end.sendall(json.dumps({"kind": "answer", "to": number, **answer}).encode() + b"\\n")
"""
_READY = f"{_READS}answer(value={{'version': 1}})\n"
_ADOPTS = f"{_READS}answer(value={{'version': 3}})\n"


async def nothing_known(*, again: bool = False) -> dict[str, Any]:  # noqa: ARG001 - as a service is asked
    """Give what there is to tell of servers and sources."""
    return {}


class Old:
    """What an upgrade needs of the service that it replaces; if it is deaf, a worker of it does not answer."""

    def __init__(self, *, is_deaf: bool = False) -> None:
        self.is_deaf = is_deaf
        self.done: list[str] = []
        self.opened: dict[str, socket.socket] = {}
        self.endpoints = SimpleNamespace(
            hold_requests=lambda: None, accept=lambda: None, be_replaced=lambda: None
        )
        self.notifier = SimpleNamespace(ready=lambda *_, **__: None)
        self.sockets = SimpleNamespace(
            ended_by_removal=list, remove_files=lambda _: None, close=lambda **_: None
        )

    def handed_over(self) -> AbstractContextManager[dict[str, socket.socket]]:
        return nullcontext({**self.opened})

    def write_pidfile(self, *, must: bool) -> None: ...

    def ended_workers(self) -> list[Any]:
        return []

    async def give(self) -> tuple[list[Any], list[Any], list[int]]:
        self.done.append("give")
        return [], [], []

    async def take_back(self) -> None:
        if self.is_deaf:
            raise AnswerTimeoutError("accept", 10)
        self.done.append("take back")

    async def hand_over(self, *_: object) -> list[Any]:
        self.done.append("hand over")
        return []

    def seconds_left(self, _: int) -> float:
        return 1.0


def upgrade_of(old: Old, program: str | Sequence[str], time: Any = reactor) -> Upgrade:
    """Upgrade to a program in Python, or a command."""
    service: Any = old
    command = [sys.executable, "-c", program] if isinstance(program, str) else program
    return Upgrade(service, service, time, command)


class FailureTest(TestCase):
    """Each way to fail: the old process is told why, and goes on."""

    async def why(self, program: str | Sequence[str], *, old: Old | None = None) -> str:
        self.old = old or Old()
        upgrade = upgrade_of(self.old, program)
        with (
            socket.create_server(("127.0.0.1", 0)) as opened,
            self.assertRaises(UpgradeError) as caught,
        ):
            self.old.opened["key"] = opened
            await upgrade.run(nothing_known)
        return str(caught.exception)

    async def test_socket_that_is_closed_meanwhile(self) -> None:
        """That of a removed listener, after its last flow, while the state is asked for: the new process gets the others."""
        says = "print(json.loads(stream.readline())['sockets'], file=os.sys.stderr)"
        old = Old()
        upgrade = upgrade_of(old, f"{_READS}{says}")
        for key in ("gone", "kept"):
            old.opened[key] = self.enterContext(socket.create_server(("127.0.0.1", 0)))

        async def state(**_: bool) -> dict[str, Any]:
            old.opened.pop("gone").close()
            return {}

        with self.assertRaises(UpgradeError) as caught:
            await upgrade.run(state)
        self.assertIn("\n['kept']", str(caught.exception))

    async def test_hangs(self) -> None:
        """One that does nothing after a minute is ended, and what it has said is told; it may not even look who has started it."""
        why = "was not ready within 60 s, and has done nothing for 10 s, though it could run"
        looks = "print('still looking', file=os.sys.stderr, flush=True)"
        for before, after in (("import os, time", "time.sleep(600)"), (_READS, "stream.read()")):
            time: Any = VirtualTime()
            upgrade = upgrade_of(Old(), f"{before}\n{looks}\n{after}", time)
            running = Deferred.fromCoroutine(upgrade.run(nothing_known))
            while not upgrade.successor.output:
                await deferLater(reactor, 0.01)
            pid = upgrade.successor.pid
            eventually(lambda: (activity_of(pid) or ProcessActivity("R", 0)).waits, "it waits")  # noqa: B023
            time.advance(60)
            for _ in range(9):
                time.advance(1)
                await deferLater(reactor, 0.01)
            self.assertFalse(running.called)
            time.advance(1)
            failure: Any = await self.assertFailure(running, UpgradeError)
            self.assertEqual(str(failure), f"the new process {why}\nstill looking")
            self.assertEqual(time.clock.getDelayedCalls(), [])

    async def test_is_slow(self) -> None:
        """It is not ready after some minutes, but it, or a process of its own, has worked all along: it has the time that it needs."""
        looks = itertools.chain(
            (ProcessActivity("R", number / 10) for number in range(600)),
            (ProcessActivity("S", 60.0) for _ in range(9)),
        )
        self.patch(
            sys.modules["txmux.processes.upgrade.upgrade"],
            "activity_of_family",
            lambda _: next(looks),
        )
        time: Any = VirtualTime()
        program = f"{_READS}print('reads', file=os.sys.stderr, flush=True)\n"
        program += "answer(value={'version': 2})\nstream.read()"
        successor = Successor(time, [sys.executable, "-c", program])
        beginning = Deferred.fromCoroutine(successor.begin({}, {}))
        while not successor.output:
            await deferLater(reactor, 0.01)
        time.advance(60)
        for _ in range(607):
            time.advance(1)
        await beginning
        self.assertEqual(time.clock.getDelayedCalls(), [])
        successor.end()
        await successor.ended()

    async def test_ends_before_the_last_state(self) -> None:
        """Its ID is still known, by which its workers are looked for."""
        program = f"{_READS}answer(value={{'version': 3}})"
        upgrade = upgrade_of(Old(), program)

        async def state(*, again: bool = False) -> dict[str, Any]:
            if again:
                await upgrade.successor.ended()
            return {}

        with self.assertRaises(UpgradeError) as caught:
            await upgrade.run(state)
        self.assertIn("the new process cannot serve: ", str(caught.exception))

    async def test_reasons(self) -> None:
        # The log has why; one that was ready, but does not begin, leaves the old one to accept clients again, and has it take back workers.
        change_constants(self, sys.modules["txmux.processes.upgrade.upgrade"], _ENDING=0.1)
        lets_go = f"{_READS}stream.close(); end.close()\nimport time; time.sleep(100)"
        again = ["take back"]
        cases: tuple[tuple[str, str, list[str]], ...] = (
            ("raise SystemExit(3)", "exited with status 3", []),
            ("import os; os.kill(os.getpid(), 11)", "was killed by signal 11 (SIGSEGV)", []),
            (lets_go, "was killed by signal 9 (SIGKILL)", []),
            (_READY, "cannot serve: the other process is gone", again),
            (f"{_READY}answer(error='no')\nstream.read()", "cannot serve: no", again),
            (
                f"{_ADOPTS}answer(value=[])\nraise SystemExit(3)",
                "cannot serve: the other process is gone",
                ["give", *again],
            ),
        )
        for program, why, done in cases:
            self.assertEqual(await self.why(program), f"the new process {why}")
            self.assertEqual(self.old.done, done)
        # A broken installation: what Python says is told.
        why = await self.why("import txmux_of_which_half_is_missing")
        self.assertIn("the new process exited with status 1", why)
        self.assertIn("ModuleNotFoundError: No module named 'txmux_of_which_half_is_missing'", why)
        self.assertEqual(self.old.done, [])
        # The end of long output is kept.
        why = await self.why("import sys; sys.exit('x' * 2**20 + 'the reason')")
        self.assertLess(len(why), 2**17)
        self.assertTrue(why.endswith("the reason"))
        # The program is missing, or descriptors.
        why = await self.why(["/nowhere/python", "-m", "twisted"])
        self.assertEqual(why, "/nowhere/python: No such file or directory")
        few = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.patch(socket, "socketpair", Mock(side_effect=few))
        why = await self.why(["/usr/bin/python"])
        self.assertEqual(why, "/usr/bin/python: Too many open files")

    async def test_nobody_answers(self) -> None:
        # If a worker of the old process does not accept again, the log says so, and the new process is ended.
        program = f"{_READY}answer(error='no')\nstream.read()"
        with capturedLogs() as events:
            why = await self.why(program, old=Old(is_deaf=True))
        self.assertEqual(why, "the new process cannot serve: no")
        (told,) = (e["why"] for e in events if "does not accept clients yet" in e["log_format"])
        self.assertEqual(str(told), "no answer to 'accept' in 10 s")
        # The new process is killed if the old one stops.
        upgrade = upgrade_of(Old(), "import time; time.sleep(100)")
        running = Deferred.fromCoroutine(upgrade.run(nothing_known))
        upgrade.give_up()
        failure: Any = await self.assertFailure(running, UpgradeError)
        self.assertEqual(str(failure), "the new process was killed by signal 9 (SIGKILL)")

    def begun(self, old: Old, program: str) -> Upgrade:
        upgrade = upgrade_of(old, program)
        self.addCleanup(upgrade.successor.ended)
        self.addCleanup(upgrade.successor.channel.close)
        return upgrade

    async def test_what_fails_after_the_commit(self) -> None:
        """The new process serves then: the upgrade has not failed, and its report says what has."""
        old = Old()
        old.endpoints.be_replaced = old.sockets.ended_by_removal = Mock(side_effect=MemoryError)
        upgrade = self.begun(old, f"{_READY}answer(value=['unix:/x'])\nstream.read()")
        with capturedLogs():
            await upgrade.run(nothing_known)
        self.assertEqual(len(self.flushLoggedErrors(MemoryError)), 2)
        self.assertTrue(upgrade.is_committed)
        report, why = upgrade.report(), "the new process serves, but this failed:"
        self.assertTrue(report.ok)
        self.assertIn(f"; {why} refuse requests here: MemoryError", report.changes)
        self.assertIn(f"; {why} hand connections over: ", report.changes)

    async def test_workers_are_adopted(self) -> None:
        """What the new process has reported is said; it keeps the workers then."""
        moved = {"moved": 7, "stays": {"undecided": 1}, "ended": [], "is_over": True}
        program = f"{_ADOPTS}answer(value=[])\nanswer(value={moved})\nstream.read()"
        upgrade = self.begun(old := Old(), program)
        await upgrade.run(nothing_known)
        self.assertEqual((old.done, upgrade.gives_workers), (["give"], True))
        report = upgrade.report()
        self.assertRegex(report.changes, "handed over: 7, in .*staying .*: 1 undecided$")
        self.assertTrue(report.details["complete"])

    async def test_sockets_alone(self) -> None:
        program = f"{_READY}answer(value=None)\nstream.read()"
        upgrade = self.begun(old := Old(), program)
        with capturedLogs() as events:
            await upgrade.run(nothing_known)
        told = "".join(str(formatEvent(event)) for event in events)
        self.assertIn("in another way (version 1, here 3)", told)
        self.assertEqual((old.done, upgrade.gives_workers), (["hand over"], False))
        upgrade.give_up()  # it serves, so that is too late
        self.assertTrue(upgrade.successor.channel.is_open)


class UpgradesTest(TestCase):
    def test_does_not_serve(self) -> None:
        """A new process that was asked to stop before it was asked to serve leaves that to the old one."""
        handlers: dict[Message, Any] = {}
        nothing: Any = None
        resources: Any = SimpleNamespace(counters=SimpleNamespace(adopt=nothing))
        upgrades = Upgrades(reactor, resources, *[nothing] * 4)
        predecessor: Any = SimpleNamespace(
            attach=lambda _, given, *__, **___: handlers.update(given), gives_connections=False
        )
        upgrades._predecessor = predecessor
        limits = SimpleNamespace(handed_over=dict)
        supervisor: Any = SimpleNamespace(limits=limits, pool=SimpleNamespace(workers=[]))
        upgrades.can_serve(supervisor)
        self.assertTrue(upgrades.stop_upgrading())
        serving = Deferred.fromCoroutine(handlers[messages.SERVE](state={}))
        self.failureResultOf(serving, UpgradeError)

    def test_not_answered(self) -> None:
        """If the new process does not answer in three minutes, whoever asked is told, and may ask again."""
        time: Any = VirtualTime()
        nothing: Any = None
        own, other = socket.socketpair()
        self.addCleanup(other.close)
        channel = Channel({}, lambda: None, time)
        attach(time, channel, own)
        changeover = Upgrades(time, *[nothing] * 5)
        successor: Any = SimpleNamespace(channel=channel)
        changeover._successor = successor
        reloading = Deferred.fromCoroutine(changeover.reload_successor())
        time.advance(179.9)
        self.assertNoResult(reloading)
        time.advance(0.1)
        report = self.successResultOf(reloading)
        self.assertEqual(
            (report.ok, report.errors),
            (False, ["the new process could not reload: no answer to 'reload' in 180 s"]),
        )
        channel.close()
        self.assertEqual(time.clock.getDelayedCalls(), [])

    def test_end(self) -> None:
        """A new process ends after it served: all are told, and the old one does not wait for workers that do not answer."""
        time, successor = VirtualTime(), Successor(reactor)
        told = [successor.ended() for _ in range(2)]
        handover: Any = SimpleNamespace(
            process=7, done=Deferred(), moved=0, rounds=0, stays={"undecided": 1}, ended=""
        )
        settling = Deferred.fromCoroutine(settled([handover], successor.ended(), time))
        self.assertNoResult(settling)
        successor.processEnded(Failure(ProcessTerminated(signal=9, status=9)))
        for one in told:
            self.assertEqual(self.successResultOf(one), "was killed by signal 9 (SIGKILL)")
        stays = {"undecided": 1}
        moved = Moved(0, stays, [], is_over=False, stays_of={"7": stays})
        self.assertEqual(self.successResultOf(settling), moved)
        self.assertEqual(time.getDelayedCalls(), [])

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
