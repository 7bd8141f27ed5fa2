"""Machines that run short of something: descriptors, memory, ports, tracked connections, processes, disk, time."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from campaign.machines.trouble import BAD, ECHO, TroubleCase, count_sockets, sorted_files
from tests.interop.children import PATIENCE, Child, eventually, output_of
from tests.interop.mux import Mux
from tests.interop.namespaces import Namespace
from tests.processes.running import family_of, halted, is_gone, open_files, starter_of, workers_of
from tests.support.ports import free_port

_ROOM = 2 * 2**20
_INFINITE = resource.RLIM_INFINITY
_groups = count()


class ShortageTrouble(TroubleCase):
    """What runs short costs new clients some patience, and is as before when there is enough again."""

    def flood(self, mux: Mux, clients: int, first: bytes = ECHO) -> list[socket.socket]:
        """Connect many clients that need not be answered."""
        made = []
        for _ in range(clients):
            client = self.connect(mux, first)
            client.setblocking(False)  # noqa: FBT003 - the socket module's signature
            made.append(client)
        return made

    def answered(self, clients: list[socket.socket]) -> int:
        """Count how many clients get their answer; they leave when each has one, or is refused."""
        found = 0
        for client in clients:
            client.settimeout(PATIENCE)
            with contextlib.suppress(ConnectionError):
                found += client.recv(1) == ECHO
        for client in clients:
            client.close()
        return found

    def test_descriptors(self) -> None:
        """The limit is lowered while it serves: clients wait, all are served, and it is said once."""
        for relay in self.relays():
            mux = self.serve(f"relay = {relay}")
            before, worker = count_sockets(mux.child.pid), self.worker(mux)
            limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
            most = max(int(link.name) for link in Path(f"/proc/{worker}/fd").iterdir())
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (most + 20, limit[1]))
            clients = self.flood(mux, 60 * self.load)
            mux.child.wait_for("clients wait until")
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
            answered = self.answered(clients)
            self.assert_recovered(mux)
            self.assert_logged(mux, done=self.clients)
            self.assertEqual(answered, 60 * self.load)
            self.assert_nothing_open(mux, before)
            self.assertEqual(mux.child.output.count("clients wait until"), 1)

    def test_address_space(self) -> None:
        """Its memory is limited to what it has: nobody is served wrongly, and all are when it may have more."""
        for relay in self.relays():
            mux = self.serve(f"relay = {relay}")
            pid = self.worker(mux)
            files = len(sorted_files(pid))
            size = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
            resource.prlimit(pid, resource.RLIMIT_AS, (size + _ROOM, _INFINITE))
            clients = self.flood(mux, 100 * self.load)
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(bytes(2**18))
            self.is_served(mux)  # or not: by then it has looked at all of them
            for client in clients:
                client.close()
            resource.prlimit(pid, resource.RLIMIT_AS, (_INFINITE, _INFINITE))
            self.assert_recovered(mux)
            eventually(lambda p=pid, f=files: len(sorted_files(p)) < f + 40, "all are closed")  # type: ignore[misc]

    def test_memory_of_group(self) -> None:
        """The kernel ends a worker that takes more than its control group may have: another one takes its place."""
        mux = self.serve("workers = 2\nrelay = portable")
        mux.child.wait_for("serving with 2 worker")
        victim = workers_of(mux.child.pid)[0]
        group = self.group("memory")
        (group / "cgroup.procs").write_text(str(victim))
        (group / "memory.limit_in_bytes").write_text(str(_ROOM // 2))
        flood: list[socket.socket] = []
        while not is_gone(victim):
            self.assertLess(len(flood), 4000, "the worker has had all the memory that it wanted")
            with contextlib.suppress(ConnectionError):  # if it is ended just now
                flood.append(self.connect(mux))
        self.assert_replaced(mux, victim)
        self.assert_recovered(mux)

    def test_ports(self) -> None:
        """Few local ports are left for connections to servers: who finds none is refused, and all are served later."""
        net = Namespace(self)
        net.enter()
        own = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        for relay in self.relays():
            # Ports of connections that are over stay taken for a minute, but not for another server.
            self.echo = self.own(type(self.echo)())
            mux = self.serve(f"relay = {relay}")
            before = count_sockets(mux.child.pid)
            net.set("ipv4/ip_local_port_range", "40000 40019")
            clients = []
            for number in range(40 * self.load):
                client = socket.socket()
                self.addCleanup(client.close)
                client.bind((f"127.0.1.{number % 250 + 1}", free_port()))
                client.connect(("127.0.0.1", mux.port))
                client.sendall(ECHO)
                self.clients += 1
                clients.append(client)
            answered = self.answered(clients)
            self.assertGreaterEqual(answered, 20)
            self.assertLess(answered, len(clients))
            net.set("ipv4/ip_local_port_range", own)
            self.assert_recovered(mux)
            self.assert_logged(mux)
            self.assert_nothing_open(mux, before)
            mux.stop()

    def test_tracking(self) -> None:
        """The kernel's table of connections is full: new ones are not heard, either way, and are when there is room.

        The size of that table belongs to the whole machine, so a rule of this network's own drops what a full table would: the first
        packets of whatever it does not know.
        """
        net = Namespace(self)
        net.enter()
        self.echo = self.own(type(self.echo)())
        full = "inet txmux full"
        net.run_lines(
            [
                "nft add table inet txmux",
                f"nft add chain {full} '{{ type filter hook output priority 0; }}'",
                # Connections are tracked while a rule asks for it.
                "nft add chain inet txmux tracked '{ type filter hook output priority 1; }'",
                "nft add rule inet txmux tracked ct state established accept",
            ]
        )
        for relay in self.relays():
            mux = self.serve(f"relay = {relay}", f"127.0.0.1:{self.echo.port}")
            before = count_sockets(mux.child.pid)
            clients = self.flood(mux, 10 * self.load)
            undecided = [self.connect(mux, b"") for _ in range(5 * self.load)]
            for client in clients:
                client.settimeout(PATIENCE)
                self.assertEqual(client.recv(1), ECHO)
            net.run_lines([f"nft add rule {full} ct state new drop"])
            with socket.socket() as unheard:
                unheard.settimeout(0.5)
                self.assertRaises(TimeoutError, unheard.connect, ("127.0.0.1", mux.port))
            for client in undecided:
                client.sendall(BAD)  # no server hears of them
            for client in undecided:
                self.assertEqual(client.recv(1), b"")
            for client in clients:
                client.sendall(b"goes on")
                self.assertEqual(client.recv(7, socket.MSG_WAITALL), b"goes on")
                client.close()
            net.run_lines([f"nft flush chain {full}"])
            self.assert_recovered(mux)
            self.assert_logged(mux, connect_timeout=len(undecided))
            self.assert_nothing_open(mux, before)
            mux.stop()

    def test_processes(self) -> None:
        """No process can be started: a worker that has gone is replaced when one can, and the others serve."""
        mux = self.serve("workers = 2")
        mux.child.wait_for("serving with 2 worker")
        victim, other = workers_of(mux.child.pid)
        group = self.group("pids")
        (group / "cgroup.procs").write_text(str(starter_of(mux.child.pid)))
        (group / "pids.max").write_text("1")
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: is_gone(victim), "the worker is gone")
        for _ in range(20):
            self.assertTrue(self.is_served(mux))
        self.assertFalse(is_gone(other))
        (group / "pids.max").write_text("max")
        self.assert_replaced(mux, victim)
        self.assert_recovered(mux)

    def test_disk(self) -> None:
        """The disk is full: clients are served, it is said once, and lines are written again when there is room."""
        disk = self.folder / "disk"
        disk.mkdir(exist_ok=True)
        output_of("mount", "-t", "tmpfs", "-o", "size=64k", "txmux-campaign", disk)
        self.addCleanup(output_of, "umount", "--lazy", disk)
        folder, type(self).folder = self.folder, disk
        self.addCleanup(setattr, type(self), "folder", folder)
        mux = self.serve()
        filler = disk / "filler"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        while "No space left" not in mux.child.output:
            self.assertTrue(self.is_served(mux))
        for _ in range(100 * self.load):
            self.assertTrue(self.is_served(mux))
        self.assertEqual(mux.child.output.count("No space left"), 1, mux.child.output)
        filler.unlink()
        lines = len(mux.lines())
        self.assert_recovered(mux)
        eventually(lambda: len(mux.lines()) >= lines + 10, "lines are written again")

    def test_halted(self) -> None:
        """It gets no time for seconds: whoever came meanwhile is served."""
        for workers in (1, 2):
            mux = self.serve(f"workers = {workers}")
            mux.child.wait_for(f"serving with {workers} worker")
            with halted(family_of(mux.child.pid)):
                clients = self.flood(mux, 50 * self.load)
                time.sleep(self.chance.uniform(1, 4))  # the trouble itself
            self.assertEqual(self.answered(clients), 50 * self.load)
            self.assert_recovered(mux)
            self.assert_logged(mux, done=self.clients)

    def test_starved(self) -> None:
        """It is the least of all, beside programs that take all the time there is."""
        mux = self.serve(before=("nice", "-n", "19"))
        for _ in range(os.cpu_count() or 1):
            burner = Child("python3", "-c", "while True: pass", limit=60)
            self.addCleanup(burner.end)
        clients = self.flood(mux, 50 * self.load)
        self.assertEqual(self.answered(clients), 50 * self.load)
        self.assert_logged(mux, done=self.clients)

    def group(self, kind: str) -> Path:
        """Make a control group, whose processes go back to where they were in the end."""
        top = Path(f"/sys/fs/cgroup/{kind}")
        group = top / f"txmux-{os.getpid()}-{next(_groups)}"
        try:
            group.mkdir()
        except OSError as problem:
            self.skipTest(f"no control group can be made: {problem}")

        def remove() -> None:
            for pid in (group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (top / "cgroup.procs").write_text(pid)
            eventually(_done(group.rmdir), f"{group} is empty")

        self.addCleanup(remove)
        return group

    def assert_replaced(self, mux: Mux, victim: int) -> None:
        """See that there are two workers again."""
        eventually(
            lambda: (
                len(now := [pid for pid in workers_of(mux.child.pid) if not is_gone(pid)]) >= 2
                and victim not in now
                and all(any("socket:" in name for name in open_files(pid)) for pid in now)
            ),
            "there are two workers",
        )


def _done(do: Callable[[], object]) -> Callable[[], bool]:
    """Make a condition of what may be done at last."""

    def attempt() -> bool:
        try:
            do()
        except OSError:
            return False
        return True

    return attempt
