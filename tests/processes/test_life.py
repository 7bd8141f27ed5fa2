"""Workers that crash, that are stopped, and that lose their supervisor."""

import os
import signal
import sys
import time
from pathlib import Path

from tests.processes.running import RULES, WorkersTestCase, set_limits
from tests.support.kit import Child, Service, eventually, make_folder, run
from tests.support.proc import (
    family_of,
    has_connection,
    is_gone,
    listening_inode,
    name_of,
    open_files,
    workers_of,
)


class CrashTest(WorkersTestCase):
    def assert_all_served(self, mux: Service) -> None:
        clients = [self.client(mux) for _ in range(40)]
        for client in clients:
            client.sendall(b"x")
        for client in clients:
            self.assertEqual(client.recv(1), b"")
        mux.take(40)

    def test_replaced_and_stopped(self) -> None:
        """One that is asked to end has a successor first, and its connections move; nobody waits meanwhile.

        While one worker does nothing, whatever the reason, the other serves all.
        """
        listening = self.backend()
        mux = self.upgrading(
            f"{RULES}[route ssh]\nmatch = ssh\nbackend = 127.0.0.1:{listening.getsockname()[1]}\n",
            "workers = 2",
        )
        client = self.client(mux)
        client.sendall(b"SSH-2.0-x\r\n")
        server = self.accept_from(listening, b"SSH-2.0-x\r\n")
        for _ in range(2):
            workers = mux.workers
            pid = next(pid for pid in workers if has_connection(pid, server))
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGTERM)
            mux.child.wait_for(r"worker \d was asked to end; worker \d takes its place")
            self.assert_all_served(mux)
            self.assert_gone([pid])
            eventually(lambda: len(mux.workers) == 2, "there are two")
            self.assertEqual(len(set(mux.workers) - {*workers}), 1)
        self.all_done(mux, [(client, server)])
        self.assertNotIn("another one is started", mux.child.output)
        self.assertNotIn("serving with 3", mux.child.output)
        first, second = mux.workers
        os.kill(first, signal.SIGSTOP)
        self.assert_all_served(mux)
        os.kill(first, signal.SIGCONT)
        mux.kill(first)
        killed = r"worker {} was .* \(SIGKILL\); another one is started {}"
        number = mux.child.wait_for(killed.format(r"(\d)", "at once"))[1]
        began = time.monotonic()
        os.kill(mux.workers[1], signal.SIGKILL)
        mux.child.wait_for(killed.format(number, "in 1 s"))
        left = mux.workers
        if time.monotonic() - began < 1:
            self.assertEqual(left, [second])
        self.assert_all_served(mux)


class StopTest(WorkersTestCase):
    def test_step_of_the_end_that_fails(self) -> None:
        """The worker ends all the same, and says why it has ended so."""
        set_limits(self, {"serving.serving.Serving.drain": "lambda *_: 1 / 0"})
        mux = Service(self.folder, RULES, "workers = 2")
        self.addCleanup(mux.child.end)
        worker, _ = mux.workers
        os.kill(worker, signal.SIGTERM)
        mux.child.wait_for("worker 1: it could not end in order(?s:.*)ZeroDivisionError")
        eventually(lambda: is_gone(worker), "the worker has ended")
        mux.terminate()
        mux.child.wait()

    def assert_refused(self, mux: Service, inode: str, pids: list[int]) -> None:
        """Wait until no process has the listening socket open, without coming as a client meanwhile."""
        eventually(
            lambda: not any(f"socket:[{inode}]" in open_files(pid) for pid in pids),
            "the socket is closed",
        )
        self.assertTrue(self.is_refused(mux.port))

    def test_signal_for_all(self) -> None:
        """A signal that is sent to all processes at once, as systemd and terminals do it, does not hurry them.

        The service ends with its last connection, whatever has ended that, such as a ban.
        """
        mux, listening = self.start_relaying(
            "workers = 2\ndrain_timeout = 10m", "end_denied = yes\n", admin=True
        )
        clients = self.one_for_each(mux, mux.workers)
        pairs = [self.relayed(mux, listening, client) for client in clients]
        pids, inode = family_of(mux.child.pid), listening_inode(mux.port)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGTERM)
        mux.child.wait_for(r"worker \d: draining connections: 1, .*\b600 s\b")
        self.assert_refused(mux, inode, pids)
        self.all_done(mux, pairs[:1])
        mux.api("bans", {"network": "127.0.0.1", "seconds": 600})
        mux.assert_stopped()
        self.assertEqual(mux.take_one()["reason"], "denied")

    def test_stuck_worker_is_killed_in_the_end(self) -> None:
        set_limits(self, {"processes.supervisor.supervisor._GRACE": 0.5})
        mux = self.upgrading(settings="workers = 2\ndrain_timeout = 0s")
        os.kill(mux.workers[0], signal.SIGSTOP)
        mux.terminate()
        mux.assert_stopped()
        self.assertIn("worker 1 does not end; it is killed", mux.child.output)
        self.assertNotIn("another one is started", mux.child.output)

    def test_supervisor_killed(self) -> None:
        """Without their supervisor, workers serve whom they have accepted, let connections finish, however long they take, and end; nobody listens any more."""
        listening = self.backend()
        settings = "workers = 2\ndrain_timeout = 0s"
        mux = Service(self.folder, self.relaying(listening), settings)
        self.addCleanup(mux.child.end)
        workers = mux.workers
        pairs = [self.relayed(mux, listening, client) for client in self.one_for_each(mux, workers)]
        silent = self.client(mux)
        self.is_accepted(mux.child.pid, silent)
        (_, *pids), inode = family_of(mux.child.pid), listening_inode(mux.port)
        mux.child.process.kill()
        self.assert_refused(mux, inode, pids)
        mux.child.wait_for("(worker . accepts no more clients(.|\n)*){2}")
        self.all_end([self.relayed(mux, listening, silent)])
        self.all_end(pairs[:1])
        self.assert_gone(workers[:1])
        self.assertEqual(name_of(pids[0]), "txmux: starter")  # it ends after them
        self.answers(*pairs[1])
        os.kill(workers[1], signal.SIGTERM)
        self.assert_gone(pids)
        self.assertEqual([line["reason"] for line in mux.take(3)], ["done", "done", "drained"])


class StreamsTest(WorkersTestCase):
    def test_closed(self) -> None:
        """It serves, reloads and stops as usual, and leaves no file behind."""
        for program, closed, status in (
            ("txmux run", "2>&-", 0),
            ("txmux run", "<&- >&- 2>&-", 0),
            ("twisted txmux --rules", "<&- >&- 2>&-", -signal.SIGTERM),
        ):
            folder = make_folder(self)
            rules, pidfile, public = (folder / name for name in ("rules.ini", "pid", "public.sock"))
            log, other = folder / "access.log", folder / "other.sock"
            text = (
                f"[txmux]\naccess_log = {log}\nworkers = 2\n[listen x]\nendpoint = unix:{public}\n"
            )
            rules.write_text(text)
            command = f'exec "$0" -m {program} "$2" --pidfile "$1" {closed}'
            child = self.own(Child("sh", "-c", command, sys.executable, pidfile, rules))
            eventually(pidfile.exists, "it serves")
            self.assertEqual(pidfile.read_text(), f"{child.pid}\n")
            for pid in family_of(child.pid):
                self.assertTrue({*"012"} <= {one.name for one in Path(f"/proc/{pid}/fd").iterdir()})
            self.be_closed_at(public)
            rules.write_text(f"{text}    unix:{other}\n")
            child.process.send_signal(signal.SIGHUP)
            eventually(other.exists, "it has read the rules again")
            self.be_closed_at(other)  # they may not be in force when it is there
            self.wait_for_lines(log, 2)  # a worker that is killed before does not write them
            for pid in (killed := workers_of(child.pid)):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda k=killed: all(map(is_gone, k)), "none of them accepts a client")  # type: ignore[misc]
            self.be_closed_at(other)
            self.wait_for_lines(log, 3)
            child.process.terminate()
            self.assertEqual((child.wait(), child.output), (status, ""))
            self.assertEqual({path.name for path in folder.iterdir()}, {log.name, rules.name})

    def wait_for_lines(self, log: Path, count: int) -> None:
        eventually(lambda: log.read_text().count("\n") == count, f"the log has {count} lines")

    def test_too_late(self) -> None:
        """Where the reactor has the number of the standard error stream already, it does not start, and says so."""
        rules = self.folder / "late.ini"
        rules.write_text(RULES)
        command = 'exec "$0" -m twisted --reactor=poll txmux --rules "$1" 2>&-'
        done = run("sh", "-c", command, sys.executable, rules)
        told = b"the standard error stream is closed; start with 2>/dev/null instead\n"
        self.assertEqual((done.returncode, done.stdout), (os.EX_USAGE, told))
