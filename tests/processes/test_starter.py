"""The process of which workers are forked ends: they go on, and others come."""

import json
import os
import shutil
import signal
import time
from collections.abc import Collection
from itertools import product
from pathlib import Path
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

import txmux
from tests.processes.running import WorkersTestCase, find_modules, set_limits
from tests.support import proc
from tests.support.changes import change_constants
from tests.support.kit import Service, eventually, make_authority, make_folder, reactor
from tests.support.supervised import WORKERS, SupervisedTestCase
from txmux.control.report import Report
from txmux.processes import forking
from txmux.processes.forking import spawn
from txmux.processes.supervisor.starter import STARTER, BackOff, InstalledCode, Starter
from txmux.version import __version__

_ENDED = "the process that starts workers has ended"


@pytest.mark.by_turns(each=True)
class StarterTest(WorkersTestCase):
    def begin(self) -> tuple[Service, list[int]]:
        mux, self.listening = self.start_relaying(program="run")
        return mux, mux.workers

    def kill_workers(self, mux: Service, pids: Collection[int], served: int) -> None:
        """End workers, and wait until this many are forked by the starter that there is now, and serve."""
        before = mux.output.count("serving with 2 worker")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: mux.output.count("serving with 2 worker") > before, "two workers serve")
        # The list of children leaves some out while others end (proc(5)).
        eventually(lambda: len(mux.workers) == served, "they are the starter's")
        self.assertTrue(all(proc.name_of(pid) for pid in mux.workers))

    def test_killed(self) -> None:
        """It is started again; workers and their connections go on, and those that are killed have successors, also without a starter."""
        mux, workers = self.begin()
        client, server = self.relayed(mux, self.listening)
        starter = proc.starter_of(mux.pid)
        os.kill(starter, signal.SIGKILL)
        eventually(lambda: {*proc.pids_of(mux.pid)} - {starter} != set(), "it is started again")
        (new,) = {*proc.pids_of(mux.pid)} - {starter}
        # It ignores these from its first moment.
        for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
            os.kill(new, number)
        eventually(lambda: proc.named(mux.pid, "starter") == [new], "it has started")
        mux.child.wait_for(f"warn .*{_ENDED}; another one is started at once")
        # The next one is started a second after its predecessor.
        began = time.monotonic()
        os.kill(proc.starter_of(mux.pid), signal.SIGKILL)
        mux.child.wait_for(f"{_ENDED}; another one is started in 1 s")
        found = proc.named(mux.pid, "starter")
        if time.monotonic() - began < 1:
            self.assertEqual(found, [])
        client.sendall(b"more")
        self.assertEqual(server.recv(4), b"more")
        self.assertFalse(any(map(proc.is_gone, workers)))
        self.kill_workers(mux, workers[:1], 1)
        self.kill_workers(mux, workers[1:], 2)
        self.assertNotIn(workers[0], mux.workers)
        for other in self.one_for_each(mux, mux.workers):
            self.relayed(mux, self.listening, other)
        self.assertIn("rules reloaded", mux.reload(("workers = 2", "workers = 3")))
        self.assertEqual(len(mux.workers), 3)

    def test_service_stops_while_the_starter_is_halted(self) -> None:
        set_limits(self, {"processes.supervisor.supervisor._GRACE": 0.5})
        mux, workers = self.begin()
        mux.reload(("workers = 2", "workers = 2\ndrain_timeout = 0s"))
        with proc.halted([proc.starter_of(mux.pid)]):
            os.kill(workers[0], signal.SIGKILL)
            mux.stop()
        self.assert_gone(workers)

    def test_other_code_is_installed(self) -> None:
        """Until the upgrade, a reload is refused; a release that cannot be imported at all hurts no client, and the next one is upgraded to."""
        folder = make_folder(self)
        original = Path(txmux.__file__).parent
        code = folder / "txmux"
        left_out = shutil.ignore_patterns("__pycache__", "version.py")
        shutil.copytree(original, code, ignore=left_out)
        shutil.copy2(original / "version.py", code)
        find_modules(self, folder)
        listening = self.backend()
        rules = f"{self.relaying(listening)}[route tls]\nmatch = tls\nbackend = close\n"
        before = ("env", "-C", str(folder))
        settings = "workers = 2\nmetrics = 127.0.0.1:0"
        mux = Service(self.folder, rules, settings, before=before, program="run")
        self.addCleanup(mux.kill_all)
        pair = self.relayed(mux, listening)
        (other,) = (pid for pid in mux.workers if not proc.has_connection(pid, pair[1]))
        (code / "version.py").write_text('__version__ = "0.0.7"\n')
        changed = f"txmux 0.0.7 is installed, this service runs {__version__}"
        refused = f"reload failed, keeping the previous rules: {changed}: run 'txmux upgrade'"
        self.assertEqual(mux.reload(("match = tls", "match = mqtt")), refused)
        for file in code.rglob("*.py"):
            if file.name != "version.py":
                file.write_text("x y")
        self.assertEqual(mux.reload(("workers = 2", "workers = 3")), refused)
        mux.refuse("the new process exited with status 1")
        self.kill_workers(mux, [other], 2)
        metrics = mux.child.wait_for(r"listening on (\S+) for \[txmux\] metrics")[1]
        with urlopen(f"http://{metrics}/metrics") as answer:
            self.assertIn(b"txmux_worker_restarts_total 1.0\n", answer.read())
        os.kill(proc.starter_of(mux.pid), signal.SIGKILL)
        mux.child.wait_for(f"no worker can be started for 1 s: {changed}; trying an upgrade")
        self.relayed(mux, listening)
        shutil.copytree(original, code, ignore=left_out, dirs_exist_ok=True)
        mux.switched()
        self.relayed(mux, listening)
        self.all_end([pair])

    def test_with_its_workers(self) -> None:
        """So it is when all of them end in one moment; clients that come meanwhile are served then."""
        mux, workers = self.begin()
        with proc.halted([mux.pid]):
            for pid in (proc.starter_of(mux.pid), *workers):
                os.kill(pid, signal.SIGKILL)
            client = self.client(mux)
            client.sendall(b"x")
        self.accept_from(self.listening, b"x")
        mux.child.wait_for("(?s)serving with 2 worker.*serving with 2 worker")
        self.assertEqual(len(mux.workers), 2)


class StartingTest(SynchronousTestCase):
    def test_halted_starter_is_killed_at_the_stop(self) -> None:
        change_constants(self, forking, _PATIENCE=0.1)
        child = spawn(STARTER)
        proc.halt(child.pid)
        Starter(reactor, child, lambda: None).close()
        self.assertRaises(ProcessLookupError, os.kill, child.pid, 0)

    def test_module_that_cannot_be_imported(self) -> None:
        """It goes on: whoever needs the module says what is wrong with it."""
        child = spawn(STARTER)
        child.connection.send(b'{"kind": "import", "modules": ["txmux.not_there"]}\n')
        child.connection.send(b'{"kind": "ping", "ask": 1}\n')
        answer = {"kind": "answer", "to": 1, "value": None}
        self.assertEqual(json.loads(child.connection.recv(100)), answer)
        child.connection.close()
        child.wait()

    def test_change(self) -> None:
        """It is other code when a module has changed, is there or is gone; one that vanishes meanwhile is no error."""
        folder = make_folder(self)
        module, version = folder / "sub/module.py", folder / "version.py"
        module.parent.mkdir()
        code = InstalledCode(folder)
        changed = "the installed code has changed since the service started"
        module.symlink_to("nowhere")  # it has a name, but cannot be looked at
        self.assertEqual(code.change(), changed)
        module.unlink()
        self.assertEqual(code.change(), "")
        for text in ("one", "other"):
            code = InstalledCode(folder)
            self.assertEqual(code.change(), "")
            module.write_text(text)
            self.assertEqual(code.change(), changed)
        for text, expected in (
            (f'__version__ = "{__version__}"', changed),
            ('__version__ = "9.0"', f"txmux 9.0 is installed, this service runs {__version__}"),
        ):
            version.write_text(text)
            self.assertEqual(code.change(), expected)

    def test_doubles(self) -> None:
        """The first time it is started at once, then after a second, and so on up to the longest; a long life resets that."""
        back_off = BackOff()
        self.assertEqual([back_off.delay(0.1) for _ in range(8)], [0, 1, 2, 4, 8, 16, 30, 30])
        self.assertEqual([back_off.delay(30), back_off.delay(0), back_off.delay(0)], [0, 1, 2])

    @given(st.lists(st.floats(0, 100)))
    def test_bounds(self, lives: list[float]) -> None:
        """It never waits longer than the longest time, and waits after each short life but the first."""
        back_off = BackOff(first=1, longest=5, settled=10)
        for number, lived in enumerate(lives):
            delay = back_off.delay(lived)
            self.assertTrue(0 <= delay <= 5)
            self.assertEqual(delay == 0, number == 0 or lived >= 10)


def _mapped(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


_TLS = "[route secure]\nmatch = tls\nterminate_tls = key.pem\n"


@pytest.mark.by_turns(each=True)
class StarterReloadTest(SupervisedTestCase):
    def halt(self) -> None:
        self.halted = self.starter()
        proc.halt(self.halted)

    async def refused(self, more: str = "") -> Report:
        """Reload rules that want one worker more, which does not come to serve."""
        self.halt()
        self.write(WORKERS.format(3) + more)
        reloading = Deferred.fromCoroutine(self.running.reload())
        await self.until(lambda: self.supervisor.pool.added)
        (added,) = self.supervisor.pool.added
        added.failed_starts = 2  # it is not waited for any longer
        self.time.advance(60)
        await self.until(lambda: reloading.called)
        return await reloading

    async def fewer(self) -> Report:
        """Reload rules that want one worker less, while one that has crashed is to be forked."""
        worker = self.supervisor.pool.workers[1]
        os.kill(worker.pid, signal.SIGKILL)
        await self.until(lambda: not worker.pid)
        self.halt()
        self.time.advance(0)
        self.write(WORKERS.format(1))
        return await self.running.reload()

    async def test_retired(self) -> None:
        """A worker that is not needed any more is ended as soon as it is forked, or forgotten if it cannot be."""
        changes = ((self.refused, False, 2), (self.fewer, True, 1))
        for (change, is_ok, count), then in product(changes, (signal.SIGCONT, signal.SIGKILL)):
            await self.run_two()
            with capturedLogs():
                report = await change()
                pool = self.supervisor.pool
                self.assertEqual((report.ok, len(pool.retiring)), (is_ok, 1))
                os.kill(self.halted, then)
                await self.until(lambda pool=pool: not pool.retiring)  # type: ignore[misc]
                self.time.advance(0)
            self.assertIsNone(self.running.failure)
            self.assertEqual([one.ready for one in pool.workers], [True] * count)
            await self.stop()

    async def has_tls(self) -> bool:
        await self.starter_answers()
        return "cryptography" in _mapped(self.starter())

    async def test_imports(self) -> None:
        """It imports what the rules in force need, and one that is started again nothing for those that were refused."""
        await self.run_two()
        make_authority().issue("site.example").write(self.folder / "key.pem", key=True)
        with capturedLogs():
            self.assertFalse((await self.refused(_TLS)).ok)
            os.kill(self.halted, signal.SIGKILL)
            await self.until(lambda: self.starter() not in {0, self.halted})
        self.assertFalse(await self.has_tls())
        self.write(WORKERS.format(2) + _TLS)
        self.assertTrue((await self.running.reload()).ok)
        self.assertTrue(await self.has_tls())
