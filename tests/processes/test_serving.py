"""Workers share what comes in, the log and the limits."""

import os
import re
import signal
import socket
import threading
from pathlib import Path

from tests.support.kit import PATIENCE, RULES, Twist, WorkersTestCase, eventually
from tests.support.proc import open_files, worker_of, workers_of


class SharingTest(WorkersTestCase):
    def test_all_serve(self) -> None:
        """Each worker gets some of the clients, and each connection stands in the log exactly once, which SIGHUP has all open again."""
        mux = self.upgrading(settings="workers = 2")
        self.assertEqual(len(workers_of(mux.child.pid)), 2)
        old = mux.log.rename(mux.log.with_suffix(".1"))
        mux.child.process.send_signal(signal.SIGHUP)
        for pid in workers_of(mux.child.pid):
            self.assert_reopened(pid, mux.log, old)
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

    def assert_reopened(self, pid: int, path: Path, old: Path) -> None:
        both = {str(path), str(old)}
        eventually(lambda: both & open_files(pid) == {str(path)}, f"{pid} has opened its log again")

    def test_unix(self) -> None:
        """A UNIX socket is one for all; it stays when a worker ends, and goes with the service."""
        path = self.folder / "public.sock"
        rules = f"{RULES}    unix:{path}:mode=600\n"
        mux = self.upgrading(rules, "workers = 2")
        mux.kill(workers_of(mux.child.pid)[0])
        replaced = workers_of(mux.child.pid)[0]
        os.kill(replaced, signal.SIGTERM)
        self.assert_gone([replaced])
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.be_closed_at(path)
        self.assertEqual(mux.take_one()["local"], f"unix:{path}")
        mux.stop()
        self.assertFalse(path.exists())


class LogTest(WorkersTestCase):
    def test_of_service(self) -> None:
        """In the service's own log, lines of the access log are as they are with one worker; other lines name theirs."""
        rules = self.folder / "own-log.ini"
        rules.write_text(
            f"[txmux]\nworkers = 2\n{RULES}[route dry]\nmatch = any\nbackend = reset\ndry_run = yes\n"
        )
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


class LimitTest(WorkersTestCase):
    def test_what_a_worker_had_is_free_when_it_has_crashed(self) -> None:
        mux, listening = self.start_relaying("workers = 2", "max_connections = 3")
        for _ in range(2):
            for _ in range(3):
                self.relayed(mux, listening)
            with mux.connect() as client:
                self.assertEqual(client.recv(1), b"")
            for pid in workers_of(mux.child.pid):
                mux.kill(pid)
