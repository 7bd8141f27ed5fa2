"""Other rules while workers serve, also where a worker cannot, is killed, or a file is not what it was."""

import errno
import os
import re
import resource
import signal
import socket
from pathlib import Path

import pytest

from tests.admin.processes import ask, get
from tests.processes.running import (
    leading_to,
    listening_inodes,
    use_plugin,
    with_more,
    with_workers,
)
from tests.processes.test_privileges import require_root
from tests.support.kit import (
    Service,
    WorkersTestCase,
    customize,
    eventually,
    free_port,
    leave_unmeasured,
    make_folder,
)
from tests.support.limits import lowered
from tests.support.proc import halted, named, open_files, workers_of


class ReloadTest(WorkersTestCase):
    def test_more_and_fewer_workers(self) -> None:
        """Added ones serve under the new rules; one that is about to end is not used again, but a retiring one with a connection is."""
        mux, _ = self.start_relaying("workers = 1\nadmin = off")
        other = self.backend()
        mux.reload(with_workers(3), leading_to(other))
        for client in self.one_for_each(mux, mux.workers):
            self.over(*self.relayed(mux, other, client))
        for count in (2, 3, 1, 3) * 4:
            mux.reload(with_workers(count))
            self.over(*self.relayed(mux, other))
        old = mux.workers
        silent = self.one_for_each(mux, old)  # who is undecided cannot be moved
        for count in (2, 3, 1, 3):
            told = mux.reload(with_workers(count))
            self.assertIn("rules reloaded: workers of [txmux] changed", told)
            for _ in range(6):
                self.over(*self.relayed(mux, other))
            self.assertEqual(mux.workers, old)
        # When they are relayed, they can be moved by an upgrade, also of a worker that is not needed any more.
        mux.reload(with_workers(2))
        pairs = [(client, self.relayed(mux, other, client)[1]) for client in silent]
        self.assertEqual(len(mux.workers), 3)
        mux.upgrade()
        mux.child.wait_for(f"connections handed over: {len(pairs)}\\b")
        mux.take(3 + 16 + 24)
        self.all_done(mux, pairs)
        self.assertNotIn("another one is started", mux.output)
        # On a busy machine, a worker may not run for seconds.
        warned = re.findall(r"warn\] (?!needs attention: worker \d does not answer).*", mux.output)
        self.assertEqual(warned, [])

    def test_client_that_is_unknown_when_its_listener_goes(self) -> None:
        """Its PROXY header comes only after that: it does not count for another listener."""
        more = "[listen l0]\nendpoint = 127.0.0.1:0\nmax_connections = 1\naccept_proxy_from = 127.0.0.1\nproxy_timeout = 10m"
        mux, server = self.start_relaying("workers = 2", more)
        ends = [self.enterContext(socket.create_connection(("127.0.0.1", mux.ports["l0"])))]
        for number in (1, 2):
            mux.reload((r"(?<=listen l)\d", str(number)))
        port = int(mux.child.wait_for(r"listening on \S+:(\d+) for \[listen l2\]")[1])
        ends.append(self.enterContext(socket.create_connection(("127.0.0.1", port))))
        for client in ends:
            client.sendall(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nx")
            self.accept_from(server, b"x").close()
            client.close()
        self.assertEqual({line["listener"] for line in mux.take(2)}, {"l0", "l2"})


_RULES = """
[listen public]
endpoint = 127.0.0.1:0
default  = close
"""
_STUCK = """
import os, sys
if "txmux" in str(sys.orig_argv):
    from txmux.processes.worker.process import MuxError, WorkerProcess

    serve = WorkerProcess._serve

    async def fail(self, start):
        if os.path.exists({0!r}):
            raise MuxError("no space")
        await serve(self, start)

    WorkerProcess._serve = fail
"""
_SHY = "[route more]\nmatch = shy\nbackend = close\n"
_FAILS = """
import functools, sys
if "txmux" in str(sys.orig_argv):
    from txmux.processes.worker.process import MuxError, WorkerProcess

    step = WorkerProcess.{0}

    @functools.wraps(step)
    def fail(self, *serving, **values):
        if self._number == 2:
            raise MuxError("no space")
        return step(self, *serving, **values)

    WorkerProcess.{0} = fail
"""
_WAITING = """
import signal, sys
if "txmux" in str(sys.orig_argv):
    from twisted.internet.defer import Deferred
    from txmux.processes.worker import process

    open_ports = process.open_ports

    async def wait(reactor, *rest, lacking=None):
        if lacking is not None:
            go = Deferred()
            signal.signal(signal.SIGCONT, lambda *_: reactor.callFromThread(go.callback, None))
            process.WorkerProcess._log.info("it starts")
            await go
        return await open_ports(reactor, *rest)

    process.open_ports = wait
"""
_BANS_NOBODY = """
    from txmux.serving.serving import Serving

    def fail(self, rows):
        if rows:
            raise OSError("no space")

    Serving.ban = fail
"""
_ROUTE = "[route more]\nmatch = ssh\nbackend = close\n"


@pytest.mark.by_turns(each=True)
class MishapsTest(WorkersTestCase):
    def test_worker_cannot_commit(self) -> None:
        """It is replaced and named, and its connections go on."""
        customize(self, _FAILS.format("_commit"))
        mux, listening = self.start_relaying(admin=True)
        workers = mux.workers
        clients = self.one_for_each(mux, workers)
        pairs = [self.relayed(mux, listening, client) for client in clients]
        mux.file.write_text(mux.file.read_text() + _ROUTE)
        status, report = ask(mux.admin, "POST", "/api/reload")
        why = "the rules are in force, but worker 2 could not take them and is replaced: no space"
        self.assertEqual((status, report), (422, {"error": why, "errors": [why]}))
        (trouble,) = mux.attention()
        self.assertEqual((trouble["what"], trouble["cause"]), ("reload", why))
        replaced = {workers[1]}
        eventually(lambda: replaced.isdisjoint(mux.workers), "it has ended")
        self.assertEqual(len(mux.workers), 2)
        self.assertEqual(mux.reload(), "rules reloaded: nothing changed")
        self.assertEqual(mux.attention("reload"), [])
        self.all_end(pairs)

    def test_changes_while_a_worker_starts(self) -> None:
        """They are made there, too, and the worker is not said to lack them; what it cannot make is logged, as by one that serves, and it serves."""
        customize(self, _WAITING + _BANS_NOBODY)
        mux = self.upgrading(settings="workers = 2", admin=True)
        old = mux.workers
        os.kill(old[0], signal.SIGKILL)
        mux.child.wait_for("it starts")
        [new] = {*mux.workers} - {*old}
        status, report = ask(mux.admin, "POST", "/api/listeners/public", {"accepting": False})
        self.assertEqual((status, report.get("errors", ())), (200, ()))
        self.assertNotIn("apply_overrides", str(report))
        ask(mux.admin, "POST", "/api/bans", {"network": "192.0.2.1", "seconds": 60})
        with self.more_serve(mux):
            os.kill(new, signal.SIGCONT)
        missing = "[listen public]: no client is accepted"
        eventually(lambda: missing in ask(mux.admin, "GET", "/readyz")[1]["missing"], missing)
        self.assertIn("a message of another process: no space", mux.output)
        self.assertIn(new, mux.workers)

    def test_helper_gone(self) -> None:
        """What needs it fails and says what to do; clients are served until a worker cannot be replaced: then the service fails."""
        require_root()
        leave_unmeasured(self)
        stuck = make_folder(self) / "stuck"
        stuck.parent.chmod(0o755)
        customize(self, _STUCK.format(str(stuck)))
        self.folder.chmod(0o755)
        mux = Service(self.folder, _RULES, "user = nobody\nworkers = 2", admin=True)
        self.addCleanup(mux.child.end)
        (helper,) = named(mux.pid, "helper")
        mux.api("status")  # so the helper has told it that the PID file is written
        os.kill(helper, signal.SIGKILL)
        gone = "the helper that opens files has ended: "
        mux.child.wait_for(f"#error. {gone}restart the service; until then ")
        (trouble,) = mux.attention()
        self.assertEqual((trouble["level"], trouble["text"]), ("critical", gone.rstrip(": ")))
        self.assertTrue(get(mux.admin, "/readyz")["ready"])
        for _ in range(2):
            self.assertIn(f"{gone}restart the service", mux.reload())
        os.kill(mux.pid, signal.SIGUSR2)
        failed = "upgrade failed, the old process keeps serving: "
        mux.child.wait_for(f"{failed}{gone}restart the service")
        self.be_closed(mux)
        mux.file.parent.chmod(0o755)  # where the access log is
        mux.kill(mux.workers[0])
        mux.file.parent.chmod(0o700)
        mux.kill(mux.workers[0])  # it can do without that
        eventually(lambda: mux.attention("log") != [], "its log is missed")
        stuck.touch()
        os.kill(mux.workers[1], signal.SIGKILL)
        self.assertEqual(mux.child.wait(), 1)
        self.assertNotIn("Traceback", mux.output)
        failed = f"worker [12] cannot start: no space; {gone[:-2]}; stopping\n"
        self.assertRegex(mux.output, f"#error. {failed}")

    def test_worker_that_cannot_start_or_prepare(self) -> None:
        """A worker that cannot start is logged in one line; the service goes on, and nothing else is said of it."""
        use_plugin(self, "shy")
        customize(self, _FAILS.format("_prepare"))
        self.folder.chmod(0o755)
        mux = self.upgrading(_RULES, "workers = 1\nadmin = off")
        text, failed = mux.file.read_text(), "reload failed, keeping the previous rules: worker 2"
        two = text.replace("workers = 1", "workers = 2")
        for rules, said in (
            (two + _SHY, f"^{failed} cannot start: .*not in this worker"),
            (text, "^rules reloaded: nothing changed$"),
            (two, "^rules reloaded: workers "),
            (two, f"^{failed}: no space$"),
        ):
            mux.file.write_text(rules)
            mux.log.rename(self.folder / "log.1")
            self.assertRegex(mux.reload(), said)
            eventually(mux.log.exists, "the log is opened again, also if the rules are refused")
            self.be_closed(mux)
            if rules == text:
                troubles = re.findall(r"#(?:warn|error|critical)\]", mux.output)
                self.assertEqual(troubles, ["#error]"])


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


@pytest.mark.whole
@pytest.mark.by_turns(each=True)
class RoughTest(WorkersTestCase):
    def test_refused_by_one_only(self) -> None:
        """What only one worker cannot do changes nothing in any; when it can, all change."""
        mux, server = self.start_relaying("workers = 3")
        other = self.backend()
        supervisor, victim = mux.pid, mux.workers[1]
        before = (
            listening_inodes(supervisor),
            {pid: open_files(pid) for pid in workers_of(supervisor)},
        )
        number = int(mux.output.count("serving with"))
        most = max(int(path.name) for path in Path(f"/proc/{victim}/fd").iterdir())
        with lowered(resource.RLIMIT_NOFILE, most, victim):
            self.assertIn("reload failed", mux.reload(leading_to(other), _MORE))
            mux.child.wait_for("Too many open files")
        for _ in range(9):
            self.relayed(mux, server)
        self.assertEqual(listening_inodes(supervisor), before[0])
        self.assertEqual([*before[1]], workers_of(supervisor))
        self.assertEqual(mux.output.count("serving with"), number)
        self.assertIn("listener other opened", mux.reload())
        for _ in range(9):
            self.relayed(mux, other)
        # New addresses listen from the commit on: a reload that is refused has accepted nobody there, whom it would cut off.
        port, path = free_port(), self.folder / "new.sock"
        more = f"[listen new]\nendpoint = 127.0.0.1:{port}\n    unix:{path}\n"
        places = ((socket.AF_INET, ("127.0.0.1", port)), (socket.AF_UNIX, str(path)))
        with halted(mux.workers[:1]):
            count = mux.ask_to_reload(with_more(more))
            eventually(path.exists, "the addresses are taken")
            for family, place in places:
                with socket.socket(family) as client:
                    self.assertEqual(client.connect_ex(place), errno.ECONNREFUSED)
        self.assertIn("listener new opened", mux.reloaded(count))
        for family, place in places:
            with socket.socket(family) as client:
                client.connect(place)
                client.sendall(b"x")
                with self.accept_from(other, b"x"):
                    pass

    def test_worker_that_prepares_is_replaced(self) -> None:
        """It may have closed its ports before it is ready to change."""
        customize(self, _UNTIL_REPLACED)
        mux, server = self.start_relaying()
        pair, other = self.relayed(mux, server), self.backend()
        old = mux.workers
        before = mux.ask_to_reload(leading_to(other), _MORE)
        mux.child.wait_for("it prepares(.|\\n)*it prepares")
        for pid in old:
            os.kill(pid, signal.SIGTERM)
        self.assertIn("listener other opened", mux.reloaded(before))
        self.all_end([pair])
        for _ in range(4):
            self.relayed(mux, other)
        self.assertNotIn("Traceback", mux.output)

    def test_ended_meanwhile(self) -> None:
        """SIGTERM during a reload ends the service when the reload is over; connected clients may finish."""
        for workers, count in ((2, 2), (2, 1), (1, 2)):
            mux, server = self.start_relaying(f"workers = {workers}")
            client, end = self.relayed(mux, server)
            with halted(mux.workers[:1]):
                mux.ask_to_reload(with_workers(count), _MORE)
                mux.terminate()
            eventually(lambda m=mux: "draining connections: 1" in m.child.output, "it drains")  # type: ignore[misc]
            self.all_end([(client, end)])
            self.assertEqual(mux.child.wait(), -signal.SIGTERM)
            self.assertNotIn("Traceback", mux.output)
            self.assertNotIn("is killed", mux.output)
            self.assertEqual(mux.take_one()["reason"], "done")
