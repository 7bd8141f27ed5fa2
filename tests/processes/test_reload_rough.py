"""Reloads that something comes in between: a worker that cannot, or is killed, and clients that are half-way."""

from __future__ import annotations

import os
import re
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.interop.children import eventually
from tests.processes.handshake import Handshake
from tests.processes.reloading import ReloadingTestCase, listening_inodes
from tests.processes.running import open_files, serves, workers_of
from tests.support.certificates import make_authority

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.interop.mux import Mux

_MORE = "[listen other]\nendpoint = 127.0.0.1:{}\n"
_TOLD = r"(?:rules reloaded:|reload failed[:,]) .*"


class RoughTest(ReloadingTestCase):
    """Services with some number of workers."""

    def ask(self, mux: Mux, change: Callable[[str], str]) -> int:
        """Change the file and ask for a reload; tell how many there were before."""
        self.file.write_text(change(self.file.read_text()))
        before = len(re.findall(_TOLD, mux.child.output))
        os.kill(mux.child.pid, signal.SIGHUP)
        return before

    def told(self, mux: Mux, before: int) -> str:
        """Wait for the end of a reload, and give what the log says of it."""
        eventually(lambda: len(re.findall(_TOLD, mux.child.output)) > before, "it is told")
        return str(re.findall(_TOLD, mux.child.output)[-1])

    def test_refused_by_one_only(self) -> None:
        """What only one worker cannot do changes nothing in any; when it can, all change."""
        mux, server = self.begin(3)
        other = self.backend()
        supervisor, victim = mux.child.pid, workers_of(mux.child.pid)[1]
        before = (
            listening_inodes(supervisor),
            {pid: open_files(pid) for pid in workers_of(supervisor)},
        )
        number = int(mux.child.output.count("workers that serve"))
        limits = resource.prlimit(victim, resource.RLIMIT_NOFILE)
        most = max(int(path.name) for path in Path(f"/proc/{victim}/fd").iterdir())
        resource.prlimit(victim, resource.RLIMIT_NOFILE, (most, limits[1]))

        def change(text: str) -> str:
            return self.lead_to(other)(text) + _MORE.format(0)

        self.assertIn("reload failed", self.reload(mux, change))
        mux.child.wait_for("not all descriptors")
        resource.prlimit(victim, resource.RLIMIT_NOFILE, limits)
        for _ in range(9):
            self.relayed(mux, server)
        self.assertEqual(listening_inodes(supervisor), before[0])
        self.assertEqual([*before[1]], workers_of(supervisor))
        self.assertEqual(mux.child.output.count("workers that serve"), number)
        self.assertIn("listener other opened", self.reload(mux, lambda text: text))
        for _ in range(9):
            self.relayed(mux, other)

    def test_killed_before_commit(self) -> None:
        """A worker that is killed when it was ready to change is succeeded by one with the new rules."""
        mux, server = self.begin()
        other = self.backend()
        slow, victim = workers_of(mux.child.pid)
        had = len(open_files(victim))
        os.kill(slow, signal.SIGSTOP)
        try:
            before = self.ask(mux, lambda text: self.lead_to(other)(text) + _MORE.format(0))
            eventually(lambda: len(open_files(victim)) > had, "one worker is ready to change")
            self.relayed(mux, server)
            os.kill(victim, signal.SIGKILL)
        finally:
            os.kill(slow, signal.SIGCONT)
        self.assertIn("listener other opened", self.told(mux, before))
        eventually(
            lambda: (
                len(workers_of(mux.child.pid)) == 2
                and mux.child.output.count("workers that serve") == 2
            ),
            "there are two workers again",
        )
        os.kill(slow, signal.SIGSTOP)  # so that the successor is asked
        try:
            self.relayed(mux, other)
        finally:
            os.kill(slow, signal.SIGCONT)
        self.relayed(mux, other)

    def test_ended_meanwhile(self) -> None:
        """SIGTERM during a reload ends the service when the reload is over; who was there may finish, and nobody is cut off."""
        for workers, count in ((2, 2), (2, 1), (1, 2)):
            mux, server = self.begin(workers)
            client, end = self.relayed(mux, server)
            held = workers_of(mux.child.pid)[:1]
            for pid in held:
                os.kill(pid, signal.SIGSTOP)
            try:
                self.ask(
                    mux,
                    lambda text: self.workers(workers, count)(text) + _MORE.format(0),  # noqa: B023 - called at once
                )
                os.kill(mux.child.pid, signal.SIGTERM)
            finally:
                for pid in held:
                    os.kill(pid, signal.SIGCONT)
            self.assert_drains(mux)
            client.sendall(b"more")
            self.assertEqual(end.recv(4), b"more")
            client.close()
            end.close()
            self.assertEqual(mux.child.wait(), -signal.SIGTERM)
            self.assertNotIn("Traceback", mux.child.output)
            self.assertNotIn("is killed", mux.child.output)
            self.assertEqual(mux.take_one()["reason"], "done")

    def test_half_a_header(self) -> None:
        """A client of whose PROXY header only a part has come finishes it under the rules under which it came."""
        line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
        for workers, count in ((1, 1), (2, 2), (1, 2), (2, 1)):
            mux, server = self.begin(
                workers,
                "accept_proxy_from = 127.0.0.1\nproxy_timeout = 10m\ndetect_timeout = 10m\n",
            )
            other = self.backend()
            client = self.client(mux)
            client.sendall(line[:20])
            self.wait_until_accepted(mux, client)

            def change(text: str) -> str:
                text = text.replace("accept_proxy_from = 127.0.0.1\n", "")
                return self.workers(workers, count)(self.lead_to(other)(text))  # noqa: B023 - called at once

            self.reload(mux, change)
            for one in self.relayed(mux, other):
                one.close()
            self.assertEqual(mux.take_one()["client"][:9], "127.0.0.1")
            client.sendall(line[20:] + b"x")
            with self.accept_from(server, b"x"):
                client.close()
            line_of_log = next(one for one in mux.take(1))
            self.assertEqual(line_of_log["client"], "192.168.0.1:56324")
            mux.child.end()

    def test_half_a_handshake(self) -> None:
        """A client that has shaken hands by half, for TLS that ends here, finishes under the rules under which it came."""
        authority = make_authority()
        ca = str(authority.write(self.folder / "ca.pem"))
        pem = authority.issue("a.example").write(self.folder / "a.pem", key=True)
        for workers, count in ((1, 1), (2, 2), (1, 2), (2, 1)):
            mux, server = self.begin(workers, "detect_timeout = 10m\n")
            other = self.backend()
            text = self.file.read_text().replace(
                "[route all]\n", "[route inside]\nunder = secure\n"
            )
            secure = f"{text}\n[route secure]\nmatch = tls\nterminate_tls = {pem}\n"
            self.reload(mux, lambda _: secure)  # noqa: B023 - called at once
            handshake, client = Handshake(ca), self.client(mux)
            hello = handshake.hello()
            client.sendall(hello[:100])
            self.wait_until_accepted(mux, client)

            def change(text: str) -> str:
                text = re.sub(r"terminate_tls = .*", "backend = close", text)
                text = text.replace("under = secure\n", "")
                return self.workers(workers, count)(self.lead_to(other)(text))  # noqa: B023 - called at once

            self.assertIn("changed", self.reload(mux, change))
            client.sendall(hello[100:])
            handshake.finish(client)
            handshake.say(client, b"x")
            with self.accept_from(server, b"x") as end:
                end.sendall(b"answer")
                self.assertEqual(handshake.hear(client), b"answer")
            client.close()
            line = mux.take_one()
            self.assertEqual((line["route"], line["bytes_in"] > 0), ("inside", True))
            mux.child.end()

    def assert_drains(self, mux: Mux) -> None:
        """Wait until the service waits for one connection."""
        eventually(lambda: "draining connections: 1" in mux.child.output, "it drains")

    def wait_until_accepted(self, mux: Mux, client: socket.socket) -> None:
        """Wait until some process has accepted a client."""
        pids = workers_of(mux.child.pid)
        eventually(lambda: any(serves(pid, client) for pid in pids), "the client is accepted")


class RemovedTest(ReloadingTestCase):
    """Connections of routes that the rules do not have any more."""

    def test_with_workers(self) -> None:
        """With drain_removed they are ended after drain_timeout in all workers, also where their number changes."""
        for workers, count in ((1, 2), (2, 1)):
            server = self.backend()
            mux = self.start(
                self.relaying(server) + "[route kept]\nmatch = ssh\nbackend = close\n",
                f"workers = {workers}\ndrain_removed = yes\ndrain_timeout = 1s\nrelay = portable",
            )
            self.file = mux.file
            pairs = [self.relayed(mux, server) for _ in range(6)]

            def change(text: str) -> str:
                gone = re.sub(r"\[route all\]\n.*\n.*\n", "", text)
                return self.workers(workers, count)(gone)  # noqa: B023 - called at once

            began = time.monotonic()
            self.assertIn("1 route gone (all)", self.reload(mux, change))
            for client, _ in pairs:
                self.assertRaises(ConnectionResetError, client.recv, 1)
            self.assertGreater(time.monotonic() - began, 1)
            self.assertEqual({line["reason"] for line in mux.take(6)}, {"drained"})
            mux.child.end()
