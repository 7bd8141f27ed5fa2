"""Workers that an upgrade has left to the new process, with connections that cannot move."""

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import SkipTest

import pytest
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.admin.processes import text_of
from tests.processes.running import (
    WorkersTestCase,
    customize,
    find_modules,
    limiting,
    listening_inodes,
)
from tests.support.kit import PATIENCE, Service, eventually, make_folder, reactor, require_program
from tests.support.proc import halt, is_gone, open_files, starter_of, workers_of
from txmux.net.channel import messages
from txmux.net.channel.descriptorstream import close_all
from txmux.net.channel.message import NOTHING, NUMBER, Field
from txmux.processes.liveness import is_worker
from txmux.processes.supervisor.adopted import CONTRACT, AdoptedWorker
from txmux.processes.supervisor.worker import Worker
from txmux.processes.worker.seccomp import MACHINES

_KNOWS_NOTHING = """
import os, sys
if "TXMUX_PREDECESSOR" in os.environ and "txmux" in sys.orig_argv:
    from txmux.processes.supervisor import adopted

    adopted._IF_KNOWN = frozenset()
"""
_BY_CONNECTION = """
import os, sys
if "TXMUX_PREDECESSOR" in os.environ and "txmux" in sys.orig_argv and not os.path.exists({flag!r}):
    from txmux.processes.upgrade import predecessor

    receive = predecessor.Predecessor.__init__

    def receive_as_before(self, end):
        receive(self, end)
        self._version = predecessor.BY_CONNECTION

    predecessor.Predecessor.__init__ = receive_as_before
"""
_BREAKS_CHANNEL = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.worker.process import WorkerProcess

    begin = WorkerProcess.begin

    def begin_and_look(self, *what):
        from twisted.internet.task import LoopingCall

        begin(self, *what)
        LoopingCall(break_off, self).start(1)

    def break_off(self):
        if not hasattr(self, "broken") and os.path.exists({flag!r} + str(os.getpid())):
            self.broken = self.channel.break_off()

    WorkerProcess.begin = begin_and_look
"""
_STAYS = """
import os, sys
if "txmux" in sys.orig_argv:
    from txmux.processes.service import MuxService
    from txmux.processes.upgrade import upgrades

    upgrades._LEAVES, upgrades._RENEWS = 0.5, 1.5
    if "TXMUX_PREDECESSOR" not in os.environ:
        MuxService._exit = lambda *_, **__: None
"""
_SAID = (
    b'{"kind":"retire","ask":1}\n',
    b'{"kind":"hand_over","ask":1,"descriptors":2}\n',
    b'{"kind":"stop","longest_wait":3600}\n',
)
_ANSWERED = (
    b'{"kind":"answer","to":%b,"value":null}\n',
    b'{"kind":"answer","to":%b,"value":{"moved":7,"stays":{"undecided":1}}}\n',
)
_BEFORE = "193851af4b10bb56af724ca88de2a0d0038da3a9"
"""The last commit whose processes adopt no workers (version 2 of an upgrade)."""


class SpokenTest(TestCase):
    async def test_as_before(self) -> None:
        """A worker of another version is sent the bytes that were sent before version 3 of an upgrade, and may answer as was answered then.

        Who waits for its end waits no longer if it is given away.
        """
        recent = SimpleNamespace(add=print)
        nothing = SimpleNamespace(adopt_process=lambda _: None, write=print, recent=recent)
        supervisor: Any = SimpleNamespace(
            counters=nothing, folded_log=nothing, state=nothing, report_waiting_clients=print
        )
        row = {"pid": os.getpid(), "counts": 0, "knows": [], "drain_timeout": 1}
        own, end = socket.socketpair()
        self.addCleanup(end.close)
        worker = AdoptedWorker(supervisor, 1, reactor, own, row)
        worker.send(messages.END_ALL)
        worker.retire()
        handing = worker.ask(messages.HAND_OVER, descriptors=[1, 1])
        stopped = worker.stop(3600)
        said, descriptors = b"", list[int]()
        while said.count(b"\n") < len(_SAID):
            with contextlib.suppress(BlockingIOError):
                more, received, *_ = socket.recv_fds(end, 2**16, 2, socket.MSG_DONTWAIT)
                said, descriptors = said + more, descriptors + received
            await deferLater(reactor, 0.01)
        close_all(descriptors)
        numbers = re.findall(rb'"ask":(\d+)', said)
        self.assertEqual(re.sub(rb'"ask":\d+', b'"ask":1', said), b"".join(_SAID))
        self.assertEqual(len(descriptors), 2)
        for number, answer in zip(numbers, _ANSWERED, strict=True):
            end.sendall(answer % number)
        self.assertEqual(await handing, {"moved": 7, "stays": {"undecided": 1}})
        self.assertNoResult(stopped)
        worker.give_away()
        self.successResultOf(stopped)
        end.setblocking(False)  # noqa: FBT003 - the socket module's signature
        is_open = True
        while is_open:
            await deferLater(reactor, 0.01)
            with contextlib.suppress(BlockingIOError):
                is_open = bool(end.recv(2**16))

    def test_never_changes(self) -> None:
        """A worker of any version takes these, and answers so; by a signature, two processes see whether a message has the same fields."""
        counts = Field(dict, fields={"moved": NUMBER, "stays": Field(dict, of=NUMBER)})
        said = {one.kind: (one.fields, one.answer, one.descriptors) for one in CONTRACT}
        never: dict[str, object] = {
            "attach": ({}, NOTHING, 1),
            "retire": ({}, NOTHING, 0),
            "hand_over": ({}, counts, 1_000),
            "stop": ({"longest_wait": NUMBER}, None, 0),
        }
        self.assertEqual(said, never)
        self.assertEqual(messages.STOP.signature, "stop(longest_wait)")
        self.assertEqual(messages.END_REMOVED.signature, "end_removed(backends,routes,version)")

    def test_is_killed_unless_it_has_clients(self) -> None:
        """A retiring worker may have moved its own to one that started too late to be given."""
        for clients, number in ((0, signal.SIGKILL), (1, signal.SIGTERM)):
            counters = SimpleNamespace(columns={}, live_in=lambda _, clients=clients: clients)
            supervisor: Any = SimpleNamespace(counters=counters)
            worker = Worker(supervisor, 1, reactor)
            with subprocess.Popen(["sleep", "60"]) as late:
                worker.pid = late.pid
                worker.give_away()
                late.terminate()
            self.assertEqual(late.returncode, -number, clients)


@pytest.mark.by_turns(each=True)
class AdoptedTest(WorkersTestCase):
    settings = "drain_timeout = 10m"

    def setUp(self) -> None:
        super().setUp()
        self.listening = self.backend()

    def begin(
        self, workers: int = 1, before: Sequence[str] = ()
    ) -> tuple[Service, tuple[socket.socket, socket.socket]]:
        """Begin a service with a client that is relayed, and another one that has said half of what decides."""
        more = "[route ssh]\nmatch = ssh\nunder = *\nbackend = 127.0.0.1:1\n"
        settings = f"workers = {workers}\n{self.settings}"
        rules = self.relaying(self.listening, more)
        self.mux = mux = self.upgrading(rules, settings, before, admin=True)
        pair = self.relayed(mux, self.listening)
        self.undecided = self.client(mux)
        self.undecided.sendall(b"S")
        self.eventually_listed(2)
        return mux, pair

    def eventually_listed(self, count: int) -> None:
        eventually(lambda: len(self.listed()) == count, f"{count} connections are listed")

    def listed(self) -> set[str]:
        return {row["id"] for row in self.mux.api("connections")}

    def replace(self, mux: Service) -> list[int]:
        """Have a new process serve, for good, and return the old workers."""
        old = mux.replace()
        mux.child.wait_for(f"upgraded: process {mux.pid} ")
        return old

    def await_adoption(self, mux: Service) -> None:
        eventually(lambda: mux.api("status")["pid"] == mux.pid, "it serves")

    def served(self) -> tuple[socket.socket, socket.socket]:
        self.undecided.sendall(b"x")
        return self.undecided, self.accept_from(self.listening, b"Sx")

    def test_are_seen_and_ended_like_all_others(self) -> None:
        """Upgrade after upgrade; the process that had them has ended, and its starter ends with its last worker."""
        mux, pair = self.begin(workers=2)
        before = self.listed()
        confined = {row["sandbox"] for row in mux.api("status")["workers"]}

        def retiring() -> int:
            return sum(row["retiring"] for row in mux.api("status")["workers"])

        starter = starter_of(mux.pid)
        for _ in range(2):
            self.replace(mux)
            self.assertEqual(self.listed(), before)
            status = mux.api("status")
            self.assertEqual(status["connections"]["active"], 2)
            self.assertEqual({row["sandbox"] for row in status["workers"]}, confined)
            eventually(lambda: retiring() == 1, "the empty ones have ended")
        eventually(lambda: is_gone(mux.before), "the old supervisor has ended")
        self.assertFalse(is_gone(starter))
        if os.uname().machine in MACHINES:  # it still answers the calls that it refuses them
            self.assertIn("anon_inode:seccomp notify", open_files(starter))
        (undecided,) = mux.api("connections?state=peeking")
        its = f"connections/{undecided['id']}"
        self.assertEqual(mux.api(its)["state"], "peeking")
        mux.api(f"{its}/close", {})
        self.assertEqual(mux.take_one()["reason"], "killed")
        eventually(lambda: is_gone(starter), "its starter has ended")
        self.eventually_listed(1)
        self.all_done(mux, [pair])

    def test_time_that_is_left(self) -> None:
        """The next upgrade says when a worker of an earlier one ends, by the rules and the time of that one, which hold no reload up."""
        mux, pair = self.begin(workers=2)
        ends, old = list[float](), list[int]()
        for _ in range(3):
            answer = mux.api("upgrade", {})
            old += mux.switched()
            eventually(lambda: is_gone(mux.before), "the old supervisor has ended")
            self.assertEqual(answer["stays"], {"undecided": 1})
            ends.append(answer["until"])
            mux.reload((r"drain_timeout = \d+\w", "drain_timeout = 2h"))
        self.assertLess(max(ends) - min(ends), 600)
        told = mux.reload(("match = ssh", "match = tls"))
        self.assertIn("1 route changed (ssh); 2 connections keep older rules", told)
        self.assertIn("nothing changed", mux.reload())
        self.assertEqual(len(mux.workers), 2)
        server = self.served()
        self.assertEqual(mux.api("upgrade", {})["moved"], 2)
        self.assert_gone([*old, *mux.switched()])
        self.all_done(mux, [pair, server])

    def test_one_is_killed_before(self) -> None:
        """The same, if it dies when the new process counts what it has, and has not adopted it; what was lost is still said."""
        for step, after in (("_count_on", True), ("_have_it_serve", False)):
            ready, gate = self.late_upgrade(step, after=after)
            mux, _ = self.begin(workers=2)
            killed, other = mux.workers
            self.one_for_each(mux, (killed, other))
            self.eventually_listed(4)
            self.upgrade_until(mux, ready)
            os.kill(killed, signal.SIGKILL)
            mux.child.wait_for("connections that ended with worker 1: ")
            gate.touch()
            mux.switched()
            mux.child.wait_for(f"upgraded: process {mux.pid} ")
            metrics = text_of(mux.admin, "/metrics")
            (active,) = re.findall(r"\ntxmux_connections_active\{.*\} (\d)", metrics)
            self.assertEqual(int(active), len(self.listed()))
            self.assertFalse(is_gone(other))
            texts = [item["text"] for item in mux.attention()]
            self.assertRegex(str(texts), r"worker 1 was killed .*, \d connections? lost")
            mux.api("connections/close", {"listener": "public"})
            mux.stop()

    def test_one_is_killed_after(self) -> None:
        """The same, if it dies when the new process has adopted it, and the upgrade is not final: one process says so, and both know.

        The one in its place has started too late to be adopted, so that the old process ends it, though it is halted.
        """
        ready, gate = self.late_upgrade("_settled")
        mux, pair = self.begin()
        old, (worker,) = mux.pid, mux.replace()
        eventually(ready.exists, "it is about to ask what has moved")
        self.eventually_listed(2)
        os.kill(worker, signal.SIGKILL)
        self.eventually_listed(1)
        mux.child.wait_for("worker 1 was killed by signal 9")

        def others() -> list[int]:
            return [pid for pid in workers_of(old) if pid != worker and is_worker(pid)]

        eventually(lambda: bool(others()), "another one has started")
        (late,) = others()
        halt(late)
        gate.touch()
        mux.child.wait_for(f"upgraded: process {mux.pid} ")
        self.assert_gone([late])
        [item] = mux.attention()
        self.assertRegex(item["text"], r"worker \d .*, 1 connection lost")
        self.all_end([pair])
        mux.stop()
        self.assertEqual(mux.output.count("connections that ended with worker"), 1)
        # Nor does the process complain that the old one has started in its place, and left.
        self.assertNotIn("the supervisor process has ended", mux.output)

    def test_one_that_cannot_be_given(self) -> None:
        """It has no descriptor left for another channel: the upgrade fails, and nothing has changed."""
        mux, pair = self.begin(workers=2)
        workers = mux.workers
        limits = resource.prlimit(mux.pid, resource.RLIMIT_NOFILE)
        for room, why in ((0, "not all descriptors have arrived"), (1, "Too many open files")):
            for pid in workers:
                used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
                free = [number for number in range(1000) if number not in used]
                resource.prlimit(pid, resource.RLIMIT_NOFILE, (free[room], limits[1]))
            mux.refuse(f"worker 1, 2: .*{why}")
            self.assertEqual(len(self.listed()), 2)
        for pid in workers:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        self.assertEqual(mux.workers, workers)
        pairs = [pair, self.relayed(mux, self.listening), self.served()]
        mux.upgrade()
        self.all_done(mux, pairs)

    def breaking(self) -> tuple[str, Callable[[int], object]]:
        """Give what has workers close their channel when they are told to, and what tells one."""
        flag = f"{make_folder(self)}/"
        Path(flag).chmod(0o755)
        return _BREAKS_CHANNEL.format(flag=flag), lambda pid: Path(f"{flag}{pid}").touch()

    def test_one_that_closes_its_channel(self) -> None:
        """Nobody could stop it, ban its clients, or list them: it is killed, and its end is seen."""
        breaks, break_channel = self.breaking()
        customize(self, breaks)
        mux, pair = self.begin()
        (worker,) = self.replace(mux)
        break_channel(worker)
        mux.child.wait_for("has closed its channel, and lives on; it is killed")
        mux.child.wait_for(r"connections that ended with worker \d: 1")
        self.assert_gone([worker])
        self.eventually_listed(1)
        self.all_end([pair])

    def test_one_that_closes_its_channel_at_first(self) -> None:
        """The upgrade fails, since the old process can reach it."""
        breaks, break_channel = self.breaking()
        gate = self.late_moves(breaks)
        mux, pair = self.begin()
        old, (worker,) = mux.pid, mux.replace()
        self.await_adoption(mux)
        break_channel(worker)
        mux.child.wait_for(f"cannot serve: the old worker {worker} has closed its channel")
        mux.switched()
        self.assertEqual((mux.pid, workers_of(old)), (old, [worker]))
        self.eventually_listed(2)
        pairs = [pair, self.served(), self.relayed(mux, self.listening)]
        gate.touch()
        self.all_done(mux, pairs)

    def test_old_process_that_stays(self) -> None:
        """Its workers end all the same, and it is killed."""
        customize(self, _STAYS)
        mux, pair = self.begin()
        old = self.replace(mux)
        mux.child.wait_for("draining connections: 1, for up to 600 s")
        self.assertFalse(is_gone(mux.before))
        mux.child.wait_for(f"the old process {mux.before} does not end; it is killed")
        eventually(lambda: is_gone(mux.before), "it has ended")
        server = self.served()
        self.assert_gone(old)
        self.all_done(mux, [pair, server])

    def test_stop_before_all_have_moved(self) -> None:
        """Whichever process is asked, both stop, and clients have their time, wherever they are."""
        more = limiting({"processes.worker.transfer._PATIENCE": 0.5})
        for asked in (("pid",), ("before",), ("pid", "before"), ()):
            # So it is as the new process begins to serve, which has the name of the service by then.
            begins = "upgrade.worker_transfers.WorkerTransfers.accept"
            gate = self.late_moves(more) if asked else self.late(begins)[1]
            mux, pair = self.begin()
            workers, pairs = [*mux.replace(), *mux.workers], [pair]
            if asked:
                self.await_adoption(mux)
                pairs += [self.relayed(mux, self.listening), self.served()]
                for one in asked:
                    os.kill(getattr(mux, one), signal.SIGTERM)
                mux.child.wait_for("(?s)draining connections: .*draining connections: ")
                self.answers(*pair)
                gate.touch()
            else:
                mux.terminate()
                mux.child.wait_for("Received SIGTERM")
                gate.touch()
                mux.child.wait_for("draining connections: ")
                self.answers(*pair)
                pairs.append(self.served())
            self.all_done(mux, pairs)
            self.assert_gone([*workers, mux.before])
            mux.assert_stopped()

    def test_old_process_hangs_before_it_asks_what_has_moved(self) -> None:
        """It is killed, since the other one has all that it had, and would not know otherwise whether it is to stay."""
        more = limiting({"processes.liveness.MOST_SILENT": 2})
        for stops in (False, True):
            ready, _ = self.late_upgrade("_settled", more)
            mux, pair = self.begin()
            mux.replace()
            eventually(ready.exists, "it is about to ask")
            os.kill(mux.before, signal.SIGSTOP)
            pairs = [pair, self.served()]
            if stops:
                mux.terminate()
            why = "has done nothing for . s, .* is killed"
            mux.child.wait_for(f"the old process {mux.before} {why}")
            self.all_done(mux, pairs)
            mux.stop()
            self.assert_gone([mux.before])

    def test_stop_while_the_new_process_hangs(self) -> None:
        """It is killed, and clients of its workers have `drain_timeout`, as all others have; after a second signal nobody waits for it."""
        self.settings = "drain_timeout = 2s"
        for signals, seconds in ((1, 0.5), (2, 3600)):
            gate = self.late_moves(limiting({"processes.upgrade.upgrade._STOPS": seconds}))
            mux, _ = self.begin()
            workers = [*mux.replace(), *mux.workers]
            self.await_adoption(mux)
            self.relayed(mux, self.listening)
            os.kill(mux.pid, signal.SIGSTOP)
            for number in range(signals):
                os.kill(mux.before, signal.SIGTERM)
                if not number:
                    mux.child.wait_for("Received SIGTERM")
            gate.touch()
            self.assert_gone([mux.pid, mux.before, *workers])
            if signals == 1:
                self.assertEqual({line["reason"] for line in mux.take(3)}, {"drained"})

    def test_new_process_killed(self) -> None:
        """What its workers have accepted by then has `drain_timeout` to end; what the old ones have goes on."""
        gate = self.late_moves()
        self.settings = "drain_timeout = 1s"
        mux, pair = self.begin()
        mux.replace()
        self.await_adoption(mux)
        (worker,) = mux.workers
        self.relayed(mux, self.listening)
        os.kill(mux.pid, signal.SIGKILL)
        mux.switched()
        self.assert_gone([worker])
        self.assertEqual(mux.take_one()["reason"], "drained")
        gate.touch()
        self.all_done(mux, [pair, self.served()])

    def test_halted_starter_and_killed_supervisor(self) -> None:
        """A halted starter is ended: after the upgrade, nobody would notice; its workers go on."""
        mux, pair = self.begin()
        starter = starter_of(mux.pid)
        halt(starter)
        old = self.replace(mux)
        eventually(lambda: is_gone(starter), "its starter has ended")
        # If the new process is killed afterwards, too, they serve what they have, and nobody else.
        os.kill(mux.pid, signal.SIGKILL)
        eventually(lambda: self.is_refused(mux.port), "nobody listens")
        self.answers(*pair)
        self.all_end([pair, self.served()])
        self.assert_gone(old)
        # One is written by a worker of the process that was killed.
        eventually(lambda: str(mux.lines()).count("'done'") == 2, "both have lines")
        reasons = {line["reason"] for line in mux.lines()}
        self.assertLessEqual(reasons, {"done", "client-gone"})  # of who came to look

    def test_other_version(self) -> None:
        """Of what both versions do not know alike, an old worker is sent nothing; its connections move, and it ends."""
        customize(self, _KNOWS_NOTHING)
        mux, pair = self.begin()
        old = mux.replace()
        mux.child.wait_for(r"handed over: 1, in .*staying in old workers until .* UTC: 1 undecided")
        self.assertEqual(len(self.listed()), 1)
        mux.api("bans", {"network": "192.0.2.1", "seconds": 600})
        self.assertIn("nothing changed", mux.reload())
        self.replace(mux)
        server = self.served()
        self.assert_gone(old)
        self.all_done(mux, [pair, server])
        self.assertNotIn("not known here", mux.output)

    def test_version_that_adopts_no_workers(self) -> None:
        """It takes connections, and the old process lives until those have ended that cannot move; from there to this version, too."""
        flag = Path(self.folder / "flag")
        customize(self, _BY_CONNECTION.format(flag=str(flag)))
        mux, pair = self.begin(workers=2)
        mux.replace()
        mux.child.wait_for(r"handed over: 1, in .*staying in old workers until .* UTC: 1 undecided")
        old = mux.before
        self.eventually_listed(1)
        self.assertFalse(is_gone(old))
        eventually(lambda: not listening_inodes(old), "it listens no more")
        flag.touch()
        mux.upgrade()
        self.assertFalse(is_gone(old))
        self.eventually_listed(1)
        self.all_end([pair, self.served()])
        eventually(lambda: is_gone(old), "the first process has ended")
        self.assertEqual({line["reason"] for line in mux.take(2)}, {"done"})

    def test_version_before(self) -> None:
        """From the code of that version to this one, back, and forth again: connections move each time, and what cannot stays where it is."""
        root, folder = Path(__file__).parents[2], make_folder(self)
        git = [require_program("git"), "-C", str(root), "archive", _BEFORE, "txmux", "twisted"]
        archive = subprocess.run(git, check=False, capture_output=True, timeout=PATIENCE)
        if archive.returncode:
            raise SkipTest(f"no history here: {archive.stderr.decode()}")
        used, empty, before = (folder / name for name in ("used", "empty", "before"))
        empty.mkdir()
        before.mkdir()
        unpack = [require_program("tar"), "-x", "-C", str(before)]
        subprocess.run(unpack, check=True, input=archive.stdout, timeout=PATIENCE)

        def use(code: Path) -> None:
            other = folder / "other"
            other.symlink_to(code)
            other.replace(used)

        use(before)
        find_modules(self, used)
        mux, pair = self.begin(before=("env", "-C", str(empty)))
        first, moved = mux.pid, "handed over: 1, "
        for count, code in enumerate((root, before, root), 1):
            use(code)
            mux.replace()
            eventually(lambda: mux.output.count(moved) == count, "it has moved")  # noqa: B023 - called at once
            self.answers(*pair)
            # It is of the version before, and has the other client
            self.assertFalse(is_gone(first))
        self.all_done(mux, [pair, self.served()])
        eventually(lambda: is_gone(first), "the first process has ended")
        mux.stop()
        self.assertNotIn("not known here", mux.output)
