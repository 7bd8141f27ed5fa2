"""Workers share what comes in, the log and the limits; they crash, are stopped, and lose their supervisor."""

import contextlib
import fcntl
import os
import re
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.admin.processes import text_of
from tests.processes.running import listening_inodes
from tests.support import proc
from tests.support.kit import (
    PATIENCE,
    RULES,
    Child,
    Service,
    Twist,
    WorkersTestCase,
    eventually,
    make_folder,
    run,
    set_limits,
)
from tests.support.proc import worker_of


class SharingTest(WorkersTestCase):
    def test_all_serve(self) -> None:
        """Each worker gets some of the clients, and each connection stands in the log exactly once, which SIGHUP has all open again."""
        path = self.folder / "public.sock"
        mux = self.upgrading(f"{RULES}    unix:{path}:mode=600\n", "workers = 2")
        self.assertEqual(len(mux.workers), 2)
        old = mux.log.rename(mux.log.with_suffix(".1"))
        mux.child.process.send_signal(signal.SIGHUP)
        both = {str(mux.log), str(old)}
        for pid in mux.workers:
            eventually(lambda: both & proc.open_files(pid) == {str(mux.log)}, "it is opened again")  # noqa: B023
        ids: list[str] = []
        while len({worker_of(one) for one in ids}) < 2:  # the first forty may all find the same one
            self.assertLess(len(ids), 2000)
            threads = [threading.Thread(target=self.be_closed, args=(mux,)) for _ in range(40)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            ids += [line["id"] for line in mux.take(40)]
        self.assertEqual(len(set(ids)), len(ids))
        self.assertEqual(old.read_text(), "")
        # A UNIX socket is one for all; it stays when a worker ends, and goes with the service.
        mux.kill(mux.workers[0])
        replaced = mux.workers[0]
        os.kill(replaced, signal.SIGTERM)
        self.assert_gone([replaced])
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.be_closed_at(path)
        self.assertEqual(mux.take_one()["local"], f"unix:{path}")
        mux.stop()
        self.assertFalse(path.exists())

    def test_of_service(self) -> None:
        """In the service's own log, lines of the access log are as they are with one worker; other lines name theirs."""
        rules = self.folder / "own-log.ini"
        dry = "[route dry]\nmatch = any\nbackend = reset\ndry_run = yes\n"
        rules.write_text(f"[txmux]\nworkers = 2\n{RULES}{dry}")
        twist = Twist("--rules", rules)
        self.addCleanup(twist.child.end)
        port = int(twist.child.wait_for(r"listening on \S+:(\d+) for")[1])
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
                client.sendall(b"x")
                self.assertEqual(client.recv(1), b"")
        twist.stop()
        lines = r"^\S+ \[txmux.access#info\] time=\S+ id=(\S+) listener=public .* reason=no-route"
        self.assertEqual(len(set(re.findall(lines, twist.child.output, re.MULTILINE))), 5)
        told = re.findall(
            r"worker \d: \[route dry\] would have taken (\d+) connections? of \[listen public\]",
            twist.child.output,
        )
        self.assertEqual(sum(map(int, told)), 5)

    def test_what_a_worker_had_is_free_when_it_has_crashed(self) -> None:
        mux, listening = self.start_relaying("workers = 2", "max_connections = 3")
        for _ in range(2):
            for _ in range(3):
                self.relayed(mux, listening)
            with mux.connect() as client:
                self.assertEqual(client.recv(1), b"")
            for pid in mux.workers:
                mux.kill(pid)


class StopTest(WorkersTestCase):
    def test_step_of_the_end_that_fails(self) -> None:
        """The worker ends all the same, and says why it has ended so."""
        set_limits(self, {"serving.serving.Serving.drain": "lambda *_: 1 / 0"})
        mux = Service(self.folder, RULES, "workers = 2")
        self.addCleanup(mux.child.end)
        worker, _ = mux.workers
        os.kill(worker, signal.SIGTERM)
        mux.child.wait_for("worker 1: it could not end in order(?s:.*)ZeroDivisionError")
        eventually(lambda: proc.is_gone(worker), "the worker has ended")
        mux.terminate()
        mux.child.wait()

    def assert_refused(self, mux: Service, inode: str, pids: list[int]) -> None:
        """Wait until no process has the listening socket open, without coming as a client meanwhile."""
        eventually(
            lambda: not any(f"socket:[{inode}]" in proc.open_files(pid) for pid in pids),
            "the socket is closed",
        )
        self.assertTrue(self.is_refused(mux.port))

    def test_signal_for_all(self) -> None:
        """A signal that is sent to all processes at once, as systemd and terminals do it, does not hurry them."""
        set_limits(self, {"processes.supervisor.pool._LOOK": 0.01})
        settings = "workers = 2\ndrain_timeout = 10m"
        mux, listening = self.start_relaying(settings, "end_denied = yes\n", admin=True)
        pairs = [self.relayed(mux, listening) for _ in range(2)]
        pids, inode = proc.family_of(mux.child.pid), proc.listening_inode(mux.port)
        for pid in reversed(pids):
            os.kill(pid, signal.SIGTERM)
        mux.child.wait_for(r"worker \d: draining connections: [12], .*\b600 s\b")
        self.assert_refused(mux, inode, pids)
        self.all_done(mux, pairs[:1])
        # The service ends with its last connection, whatever has ended that, such as a ban.
        mux.api("bans", {"network": "127.0.0.1", "seconds": 600})
        mux.assert_stopped()
        self.assertEqual(mux.take_one()["reason"], "denied")
        # Once it has stopped listening, its PID file does not come back while clients have their time.
        self.assertFalse(mux.pidfile.exists())

    def test_stuck_worker_is_killed_in_the_end(self) -> None:
        set_limits(self, {"processes.supervisor.supervisor._GRACE": 0.5})
        mux = self.upgrading(settings="workers = 2\ndrain_timeout = 0s")
        os.kill(mux.workers[0], signal.SIGSTOP)
        mux.terminate()
        mux.assert_stopped()
        self.assertIn("worker 1 does not end; it is killed", mux.output)
        self.assertNotIn("another one is started", mux.output)

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
        (_, *pids), inode = proc.family_of(mux.child.pid), proc.listening_inode(mux.port)
        mux.child.process.kill()
        self.assert_refused(mux, inode, pids)
        mux.child.wait_for("(worker . accepts no more clients(.|\n)*){2}")
        self.all_end([self.relayed(mux, listening, silent)])
        self.all_end(pairs[:1])
        self.assert_gone(workers[:1])
        self.assertEqual(proc.name_of(pids[0]), "txmux: starter")  # it ends after them
        self.answers(*pairs[1])
        os.kill(workers[1], signal.SIGTERM)
        self.assert_gone(pids)
        self.assertEqual([line["reason"] for line in mux.take(3)], ["done", "done", "drained"])

    def assert_all_served(self, mux: Service) -> None:
        clients = [self.client(mux) for _ in range(40)]
        for client in clients:
            client.sendall(b"x")
        for client in clients:
            self.assertEqual(client.recv(1), b"")
        mux.take(40)

    def test_replaced_and_stopped(self) -> None:
        """One that is asked to end has a successor first, and its connections move; nobody waits meanwhile."""
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
            pid = next(pid for pid in workers if proc.has_connection(pid, server))
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGTERM)
            mux.child.wait_for(r"worker \d was asked to end; worker \d takes its place")
            self.assert_all_served(mux)
            self.assert_gone([pid])
            eventually(lambda: len(mux.workers) == 2, "there are two")
            self.assertEqual(len(set(mux.workers) - {*workers}), 1)
        self.all_done(mux, [(client, server)])
        self.assertNotIn("another one is started", mux.output)
        self.assertNotIn("serving with 3", mux.output)
        # While one worker does nothing, whatever the reason, the other serves all.
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
            listen = f"[listen x]\nendpoint = unix:{public}\n"
            text = f"[txmux]\naccess_log = {log}\nworkers = 2\n{listen}"
            rules.write_text(text)
            command = f'exec "$0" -m {program} "$2" --pidfile "$1" {closed}'
            child = self.own(Child("sh", "-c", command, sys.executable, pidfile, rules))
            eventually(pidfile.exists, "it serves")
            self.assertEqual(pidfile.read_text(), f"{child.pid}\n")
            for pid in proc.family_of(child.pid):
                self.assertTrue({*"012"} <= {one.name for one in Path(f"/proc/{pid}/fd").iterdir()})
            self.be_closed_at(public)
            rules.write_text(f"{text}    unix:{other}\n")
            child.process.send_signal(signal.SIGHUP)
            eventually(other.exists, "it has read the rules again")
            self.be_closed_at(other)  # they may not be in force when it is there
            # A worker that is killed before does not write them.
            eventually(lambda: log.read_text().count("\n") == 2, "it has their lines")  # noqa: B023
            for pid in (killed := proc.workers_of(child.pid)):
                os.kill(pid, signal.SIGKILL)
            eventually(lambda k=killed: all(map(proc.is_gone, k)), "none of them accepts a client")  # type: ignore[misc]
            self.be_closed_at(other)
            eventually(lambda: log.read_text().count("\n") == 3, "it has three lines")  # noqa: B023
            child.process.terminate()
            self.assertEqual((child.wait(), child.output), (status, ""))
            self.assertEqual({path.name for path in folder.iterdir()}, {log.name, rules.name})

    def test_too_late(self) -> None:
        """Where the reactor has the number of the standard error stream already, it does not start, and says so."""
        rules = self.folder / "late.ini"
        rules.write_text(RULES)
        command = 'exec "$0" -m twisted --reactor=poll txmux --rules "$1" 2>&-'
        done = run("sh", "-c", command, sys.executable, rules)
        told = b"the standard error stream is closed; start with 2>/dev/null instead\n"
        self.assertEqual((done.returncode, done.stdout), (os.EX_USAGE, told))


_CLIENTS = 100
_PIPE = 4096  # bytes: the lines of some ten clients


@pytest.mark.by_turns(each=True)
class SlowReaderTest(WorkersTestCase):
    """Lines of the access log wait for a slow reader when their process ends: each is written, or counted."""

    def test_log_of_the_service(self) -> None:
        """With ``access_log = -``, lines go there."""
        for how in ("upgraded", "stopped"):
            fifo = self.make_folder() / "log.fifo"
            os.mkfifo(fifo)
            reads = f'cat {fifo} & echo "read by $!."; exec "$0" "$@" 2> {fifo}'
            with os.fdopen(os.open(fifo, os.O_RDWR | os.O_NONBLOCK), "r+b", 0) as pipe:
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
                settings, before = "drain_timeout = 10m", ("sh", "-c", reads)
                mux = self.upgrading(RULES, settings, before, admin=True, program="run")
            reader, old = int(mux.child.wait_for(r"read by (\d+)\.")[1]), mux.pid
            mux.reload(("access_log = .*", "access_log = -"))
            with proc.halted([reader]):
                for _ in range(_CLIENTS):
                    self.be_closed(mux)
                eventually(lambda: not mux.api("status")["connections"]["active"], "all end")  # noqa: B023
                if how == "upgraded":
                    mux.replace()
                else:
                    mux.terminate()
                eventually(lambda: not listening_inodes(old), "it is about to end")  # noqa: B023
            eventually(lambda: mux.output.count('"reason"') == _CLIENTS, "all lines come")  # noqa: B023
            self.assert_gone([old])
            mux.end()

    def begin(self, drain_timeout: str) -> None:
        fifo = self.make_folder() / "access.fifo"
        os.mkfifo(fifo)
        self.pipe = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
        self.addCleanup(os.close, self.pipe)
        fcntl.fcntl(self.pipe, fcntl.F_SETPIPE_SZ, _PIPE)
        self.received = b""
        settings = f"drain_timeout = {drain_timeout}"
        before = "sh", "-c", f'exec "$0" "$@" > {fifo}'
        self.mux = self.upgrading(RULES, settings, before, admin=True, program="run")

    def serve(self) -> None:
        """Serve clients, of whose lines the reader takes none yet."""
        self.mux.reload(("access_log = .*", "access_log = stdout"))
        for _ in range(_CLIENTS):
            self.be_closed(self.mux)

    def read(self) -> int:
        """Take the lines that have come, and return how many came until now."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.pipe, _PIPE):
                self.received += data
        return self.received.count(b"\n")

    def end_by(self, how: str) -> list[int]:
        """End processes that have lines, and return their IDs."""
        old = [self.mux.pid] if how == "stopped" else self.mux.workers
        if how == "upgraded":
            self.mux.replace()
        elif how == "replaced":
            with self.more_serve(self.mux):
                os.kill(old[0], signal.SIGTERM)
        else:
            self.mux.terminate()
        return old

    def test_reader_that_goes_on(self) -> None:
        """Also where a reload has replaced the log: its reader takes what it has not taken by then before the worker ends."""
        for ways in (("replaced off", "replaced", "upgraded", "stopped"), ("stopped off",)):
            self.begin("10m")
            for count, how in enumerate(ways, 1):
                self.serve()
                if "off" in how:
                    self.mux.reload(("access_log = stdout", "access_log = off"))
                ended = self.end_by(how.removesuffix(" off"))
                self.assertFalse(any(map(proc.is_gone, ended)))
                eventually(lambda: self.read() == count * _CLIENTS, f"{how}: all lines come")  # noqa: B023
                self.assert_gone(ended)
                self.assertEqual(self.read(), count * _CLIENTS)
            self.mux.end()

    def test_reader_that_does_not(self) -> None:
        """The rest is counted; a stop says how many."""
        self.begin("1s")
        rest = 0
        for how in ("replaced", "upgraded", "stopped"):
            self.serve()
            before = self.received.count(b"\n")
            self.assert_gone(self.end_by(how))
            written = self.read() - before
            self.assertLess(written, _CLIENTS)
            rest += _CLIENTS - written
            if how == "stopped":
                said = "lines that logs could not write since the service started"
                self.mux.child.wait_for(f"{said}: {rest}\n")
            else:
                lost = f"\ntxmux_access_log_lost_total {rest}.0\n"
                eventually(lambda: lost in text_of(self.mux.admin, "/metrics"), "it is counted")  # noqa: B023
