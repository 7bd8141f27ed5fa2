"""Reloads when the rules file, or what it names, is not what it was."""

import os
import re
import signal

import pytest

from tests.admin.processes import ask, get
from tests.processes.running import WorkersTestCase, customize, use_plugin
from tests.processes.test_privileges import require_root
from tests.support.kit import Service, eventually, leave_unmeasured, make_folder
from tests.support.proc import named, workers_of

pytestmark = pytest.mark.by_turns(each=True)

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


class MishapsTest(WorkersTestCase):
    def begin(self, settings: str = "") -> None:
        self.folder.chmod(0o755)
        self.mux = self.upgrading(_RULES, settings)
        self.rules = self.mux.file
        self.text = self.rules.read_text()

    def reload(self) -> str:
        told = self.mux.reload()
        self.be_closed(self.mux)
        return told

    def test_worker_cannot_commit(self) -> None:
        """It is replaced and named, and its connections go on."""
        customize(self, _FAILS.format("_commit"))
        mux, listening = self.start_relaying(admin=True)
        workers = workers_of(mux.pid)
        pairs = []
        for client in self.one_for_each(mux, workers):
            client.sendall(b"x")
            pairs.append((client, self.accept_from(listening, b"x")))
        mux.file.write_text(mux.file.read_text() + _ROUTE)
        status, report = ask(mux.admin, "POST", "/api/reload")
        why = "the rules are in force, but worker 2 could not take them and is replaced: no space"
        self.assertEqual((status, report), (422, {"error": why, "errors": [why]}))
        (trouble,) = mux.api("status")["attention"]
        self.assertEqual((trouble["what"], trouble["cause"]), ("reload", why))
        replaced = {workers[1]}
        eventually(lambda: replaced.isdisjoint(workers_of(mux.pid)), "it has ended")
        self.assertEqual(len(workers_of(mux.pid)), 2)
        self.assertEqual(mux.reload(), "rules reloaded: nothing changed")
        self.assertNotIn("reload", [item["what"] for item in mux.api("status")["attention"]])
        self.all_end(pairs)

    def test_changes_while_a_worker_starts(self) -> None:
        """They are made there, too, and the worker is not said to lack them; what it cannot make is logged, as by one that serves, and it serves."""
        customize(self, _WAITING + _BANS_NOBODY)
        mux = self.upgrading(settings="workers = 2", admin=True)
        old = workers_of(mux.pid)
        os.kill(old[0], signal.SIGKILL)
        mux.child.wait_for("it starts")
        [new] = {*workers_of(mux.pid)} - {*old}
        status, report = ask(mux.admin, "POST", "/api/listeners/public", {"accepting": False})
        self.assertEqual((status, report.get("errors", ())), (200, ()))
        self.assertNotIn("apply_overrides", str(report))
        ask(mux.admin, "POST", "/api/bans", {"network": "192.0.2.1", "seconds": 60})
        with self.more_serve(mux):
            os.kill(new, signal.SIGCONT)
        missing = "[listen public]: no client is accepted"
        eventually(lambda: missing in ask(mux.admin, "GET", "/readyz")[1]["missing"], missing)
        self.assertIn("a message of another process: no space", mux.child.output)
        self.assertIn(new, workers_of(mux.pid))

    def test_worker_cannot_prepare(self) -> None:
        customize(self, _FAILS.format("_prepare"))
        self.begin("workers = 2")
        self.assertEqual(
            self.reload(), "reload failed, keeping the previous rules: worker 2: no space"
        )

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
        (trouble,) = mux.api("status")["attention"]
        self.assertEqual((trouble["level"], trouble["text"]), ("critical", gone.rstrip(": ")))
        self.assertTrue(get(mux.admin, "/readyz")["ready"])
        for _ in range(2):
            self.assertIn(f"{gone}restart the service", mux.reload())
        os.kill(mux.pid, signal.SIGUSR2)
        mux.child.wait_for(
            f"upgrade failed, the old process keeps serving: {gone}restart the service"
        )
        self.be_closed(mux)
        mux.file.parent.chmod(0o755)  # where the access log is
        mux.kill(workers_of(mux.pid)[0])
        mux.file.parent.chmod(0o700)
        mux.kill(workers_of(mux.pid)[0])  # it can do without that
        eventually(
            lambda: any(item["what"] == "log" for item in mux.api("status")["attention"]),
            "its log is missed",
        )
        stuck.touch()
        os.kill(workers_of(mux.pid)[1], signal.SIGKILL)
        self.assertEqual(mux.child.wait(), 1)
        self.assertNotIn("Traceback", mux.child.output)
        self.assertRegex(
            mux.child.output, f"#error. worker [12] cannot start: no space; {gone[:-2]}; stopping\n"
        )

    def test_worker_that_cannot_start(self) -> None:
        """A worker that cannot start is logged in one line; the service goes on, and nothing else is said of it."""
        use_plugin(self, "shy")
        self.begin("workers = 1\nadmin = off")
        self.rules.write_text(self.text.replace("workers = 1", "workers = 2") + _SHY)
        self.assertRegex(
            self.reload(),
            "^reload failed, keeping the previous rules: worker 2 cannot start: .*not in this worker",
        )
        self.rules.write_text(self.text)
        self.assertEqual(self.reload(), "rules reloaded: nothing changed")
        self.assertEqual(
            re.findall(r"#(?:warn|error|critical)\]", self.mux.child.output), ["#error]"]
        )
