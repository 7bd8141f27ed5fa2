"""Other rules while several processes serve."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.interop.mux import Mux
from tests.processes.running import WorkersTestCase, pids_of

if TYPE_CHECKING:
    from collections.abc import Callable


def listening_inodes(pid: int) -> set[str]:
    """Give what tells the listening TCP sockets of a process apart."""
    table = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    listening = {fields[9] for fields in map(str.split, table) if fields[3] == "0A"}
    opened = [
        str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()
    ]
    return {text[8:-1] for text in opened if text.startswith("socket:[")} & listening


class ReloadTest(WorkersTestCase):
    """Services with workers, or that come to have some."""

    def begin(self, workers: int = 2) -> tuple[Mux, socket.socket]:
        """Start a service that leads to a server."""
        server = self.backend()
        mux = Mux(self.folder, self.relaying(server), f"workers = {workers}")
        self.addCleanup(mux.child.end)
        if workers > 1:
            mux.child.wait_for("workers that serve: ")
        self.file = next(mux.log.parent.glob("*.ini"))
        return mux, server

    def reload(self, mux: Mux, change: Callable[[str], str]) -> str:
        """Change the file, reload it, and give what the log says of that."""
        self.file.write_text(change(self.file.read_text()))
        pattern = r"rules (?:not )?reloaded[:,] .*"
        before = len(re.findall(pattern, mux.child.output))
        os.kill(mux.child.pid, signal.SIGHUP)
        eventually(
            lambda: len(re.findall(pattern, mux.child.output)) > before, "the rules are reloaded"
        )
        return str(re.findall(pattern, mux.child.output)[-1])

    def wait_for_more(self, mux: Mux, before: int) -> None:
        """Wait for one more reload."""
        eventually(
            lambda: mux.child.output.count("rules reloaded") > before, "the rules are reloaded"
        )

    def lead_to(self, server: socket.socket) -> Callable[[str], str]:
        """Lead clients to another server."""
        port = server.getsockname()[1]
        return lambda text: re.sub(r"backend = .*", f"backend = 127.0.0.1:{port}", text)

    def test_all_or_none(self) -> None:
        """All workers change, or none does; connections go on, the sockets and the processes stay."""
        mux, server = self.begin()
        client, end = self.relayed(mux, server)
        before = (listening_inodes(mux.child.pid), pids_of(mux.child.pid))
        other = self.backend()
        told = self.reload(mux, lambda text: f"{self.lead_to(other)(text)}[what]\n")
        self.assertIn("not reloaded", told)
        for _ in range(4):
            self.relayed(mux, server)
        told = self.reload(mux, lambda text: text.replace("[what]\n", ""))
        self.assertEqual(
            told, "rules reloaded: 1 route changed (all); 5 connections go on under older rules"
        )
        for _ in range(8):
            self.relayed(mux, other)
        client.sendall(b"more")
        self.assertEqual(end.recv(4), b"more")
        self.assertEqual((listening_inodes(mux.child.pid), pids_of(mux.child.pid)), before)

    def test_refused_by_one(self) -> None:
        """What a worker cannot use is refused, though the parent could."""
        mux, server = self.begin()
        told = self.reload(
            mux, lambda text: text.replace("access.log", f"missing{os.sep}access.log")
        )
        self.assertIn("access_log: ", mux.child.output)
        self.assertIn("not reloaded", told)
        self.relayed(mux, server)

    def test_listeners(self) -> None:
        """New listeners are opened in all workers; one that is gone is closed when those who wait have been served."""
        mux, server = self.begin()
        port = mux.port
        with socket.create_connection(("127.0.0.1", port), timeout=20) as waiting:
            waiting.sendall(b"w")
            told = self.reload(
                mux, lambda text: re.sub(r"\[listen public\]", "[listen other]", text)
            )
            self.assertIn("listener other opened; listener public closed", told)
            end, _ = server.accept()
            self.addCleanup(end.close)
            self.assertEqual(end.recv(1), b"w")
        found = mux.child.wait_for(r"listening on \S+:(\d+) for \[listen other\]")
        with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as client:
            client.sendall(b"n")
            end, _ = server.accept()
            self.addCleanup(end.close)
            self.assertEqual(end.recv(1), b"n")
        with socket.socket() as late:
            self.assertNotEqual(late.connect_ex(("127.0.0.1", port)), 0)

    def test_workers(self) -> None:
        """There are more workers, or fewer; those that are not needed end when their connections have."""
        mux, server = self.begin()
        pairs = [self.relayed(mux, server) for _ in range(12)]
        old = pids_of(mux.child.pid)
        self.reload(mux, lambda text: text.replace("workers = 2", "workers = 4"))
        eventually(lambda: "workers that serve: 4" in mux.child.output, "four workers serve")
        self.assertEqual(pids_of(mux.child.pid)[:2], old)
        pairs += [self.relayed(mux, server) for _ in range(12)]
        inodes = listening_inodes(mux.child.pid)
        self.reload(mux, lambda text: text.replace("workers = 4", "workers = 2"))
        pairs += [self.relayed(mux, server) for _ in range(12)]
        for client, end in pairs:
            client.sendall(b"more")
            self.assertEqual(end.recv(4), b"more")
        for client, end in pairs:
            client.close()
            end.close()
        eventually(lambda: pids_of(mux.child.pid) == old, "two workers are left")
        self.relayed(mux, server)
        self.assertEqual(listening_inodes(mux.child.pid), inodes)
        self.assertNotIn("another one is started", mux.child.output)

    def test_one_and_many(self) -> None:
        """One process becomes several, and several become one; connections stay where they are, and so do sockets."""
        mux, server = self.begin(1)
        pairs = [self.relayed(mux, server)]
        inodes = listening_inodes(mux.child.pid)
        told = self.reload(mux, lambda text: text.replace("workers = 1", "workers = 2"))
        self.assertEqual(
            told,
            "rules reloaded: workers of [txmux] changed; 1 connection goes on under older rules",
        )
        self.assertEqual(len(pids_of(mux.child.pid)), 2)
        pairs += [self.relayed(mux, server) for _ in range(4)]
        self.reload(mux, lambda text: text.replace("workers = 2", "workers = 1"))
        pairs += [self.relayed(mux, server)]
        self.assertEqual(listening_inodes(mux.child.pid), inodes)
        for client, end in pairs:
            client.sendall(b"more")
            self.assertEqual(end.recv(4), b"more")
            client.close()
            end.close()
        eventually(lambda: not pids_of(mux.child.pid), "no worker is left")
        self.relayed(mux, server)

    def test_killed_meanwhile(self) -> None:
        """A worker that is killed during a reload is succeeded by one with the rules that hold then."""
        mux, server = self.begin()
        other = self.backend()
        for number in range(6):
            eventually(lambda: len(pids_of(mux.child.pid)) == 2, "there are two workers")
            victim = pids_of(mux.child.pid)[number % 2]
            self.file.write_text(self.lead_to((other, server)[number % 2])(self.file.read_text()))
            before = mux.child.output.count("rules reloaded")
            os.kill(mux.child.pid, signal.SIGHUP)
            os.kill(victim, signal.SIGKILL)
            self.wait_for_more(mux, before)
            for _ in range(4):
                self.relayed(mux, (other, server)[number % 2])

    def test_storm(self) -> None:
        """Many signals at once make few reloads, of which the last knows what the file says."""
        mux, server = self.begin()
        other = self.backend()
        text = self.file.read_text()
        for number in range(51):
            extra = "[listen extra]\nendpoint = 127.0.0.1:0\n" if number == 50 else ""
            written = self.file.with_suffix(".new")
            written.write_text(extra + self.lead_to((other, server)[number % 2])(text))
            written.rename(self.file)
            os.kill(mux.child.pid, signal.SIGHUP)
        eventually(lambda: "listener extra opened" in mux.child.output, "the last one is known")
        self.assertNotIn("not reloaded", mux.child.output)
        self.assertLess(mux.child.output.count("rules reloaded"), 52)
        for _ in range(6):
            self.relayed(mux, other)

    def test_limits(self) -> None:
        """Connections of older rules, and of workers that are not needed any more, count for a new limit."""
        mux, server = self.begin()
        pairs = [self.relayed(mux, server) for _ in range(6)]
        self.reload(
            mux,
            lambda text: text.replace("workers = 2", "workers = 3\nmax_connections = 7"),
        )
        pairs.append(self.relayed(mux, server))
        with mux.connect():
            self.assertEqual(mux.take_one()["reason"], "limit")
        client, end = pairs.pop()
        client.close()
        end.close()
        mux.take_one()
        pairs.append(self.relayed(mux, server))
