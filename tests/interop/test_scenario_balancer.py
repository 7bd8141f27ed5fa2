"""The example of HAProxy in front of three machines with txmux, each in a network of its own, which are upgraded and restarted one after another.

The long form, with 20,000 connections, runs with ``TXMUX_LONG=1``, and prints its figures.
"""

import os
import signal
import socket
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from tests.interop.children import Child, eventually, output_of
from tests.interop.originals import client_hello
from tests.interop.scenario import EXAMPLES, ScenarioTestCase
from tests.support.kit import Namespace, ThreadServer, Twist, is_gone, mounted, require_program

_FILES = EXAMPLES / "balancer"
_SERVERS = ("192.0.2.21", "192.0.2.22")
_HELLO = client_hello("www.example.com")
_IS_LONG = bool(os.environ.get("TXMUX_LONG"))

_RATE, _PATIENCE = 200, 180
_ANSWER = b"hello " + b"x" * 10_000 + b" done"


def _serve(client: socket.socket) -> None:
    """Answer a client, when it has said something, half a second later, so that many connections are established at any time."""
    if client.recv(10_000):
        time.sleep(0.5)
        client.sendall(_ANSWER)


def _visit() -> tuple[float, str]:
    """Return how long a client takes, and what it gets, if that is not the whole answer."""
    begun = time.monotonic()
    try:
        with socket.create_connection(("192.0.2.10", 443), _PATIENCE) as client:
            client.sendall(_HELLO)
            answer = b"".join(iter(partial(client.recv, 2**16), b""))
    except OSError as problem:
        return time.monotonic() - begun, repr(problem)
    return time.monotonic() - begun, "" if answer == _ANSWER else f"{answer[:100]!r}"


class _Load:
    """A number of clients a second, until it is ended and at least some have come."""

    def __init__(self, least: int) -> None:
        self.visits: list[Future[tuple[float, str]]] = []
        self._least = least
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        begun, number = time.monotonic(), 0
        # On a machine that is too busy for this rate, more and more of them would be under way.
        with ThreadPoolExecutor(2 * _RATE) as threads:
            while number < self._least or not self._over.is_set():
                time.sleep(max(0, begun + number / _RATE - time.monotonic()))
                self.visits.append(threads.submit(_visit))
                number += 1

    def end(self) -> None:
        self._over.set()
        self._thread.join()


class _Machine:
    """One of three: a network of its own, and txmux with the file of the example."""

    def __init__(self, test: "BalancerTests", name: str, number: int) -> None:
        self.name = name
        self.network = Namespace(test)
        test.network.plug(self.network, f"192.0.2.{number}")
        self._run = test.folder / name
        (self._run / "txmux").mkdir(parents=True)
        self._pidfile = test.folder / f"{name}.pid"
        self.children: list[Child] = []
        self.start()

    @property
    def pid(self) -> int:
        return int(self._pidfile.read_text())

    def start(self) -> None:
        before = (*self.network.command, *mounted({"/run": self._run}), "env", "RUNTIME_DIRECTORY=")
        options = ("--rules", _FILES / "rules.ini", "--pidfile", self._pidfile)
        self.txmux = Twist(*options, before=before)
        self.children.append(self.txmux.child)
        self.txmux.child.wait_for("Starting reactor")
        eventually(self._pidfile.exists, "txmux serves")

    def has_served(self) -> bool:
        """Tell whether clients have come since it was started, of whom HAProxy has told."""
        return " facts.proxy_peer=192.0.2.10" in self.txmux.child.output

    def upgrade(self) -> None:
        old = self.pid
        admin = f"--admin=unix:{self._run}/txmux/rules.sock"
        output_of(sys.executable, "-m", "txmux", "upgrade", admin)
        eventually(lambda: self.pid != old and is_gone(old), "the old process has ended")

    def stop(self) -> None:
        old = self.pid
        os.kill(old, signal.SIGTERM)
        eventually(lambda: is_gone(old), "txmux has ended")
        self.txmux.child.wait()

    def end(self) -> None:
        if self._pidfile.exists() and not is_gone(self.pid):
            os.kill(self.pid, signal.SIGKILL)
        self.txmux.child.wait()


class BalancerTests(ScenarioTestCase):
    """Clients come at a steady rate, and none of them may be lost."""

    def said(self, name: str, what: str) -> int:
        return self.haproxy.output.count(f"Server txmux/{name} is {what}")

    def restart(self, machine: _Machine) -> None:
        downs, ups = (self.said(machine.name, what) for what in ("DOWN", "UP"))
        machine.stop()
        self.assertEqual(self.said(machine.name, "DOWN"), downs + 1)
        machine.start()
        eventually(lambda: self.said(machine.name, "UP") > ups, "HAProxy has found it again")
        eventually(machine.has_served, "clients come to it again")

    def test_rolling(self) -> None:
        """While each txmux is upgraded, and restarted after that, every one of 200 clients a second gets its whole answer."""
        require_program("haproxy")
        self.network.make_lan("192.0.2.10", *_SERVERS)
        for address in _SERVERS:
            self.own(ThreadServer(_serve, address, 8443))
        named = enumerate(("one", "two", "three"), start=11)
        machines = [self.own(_Machine(self, name, number)) for number, name in named]
        haproxy = ("haproxy", "-W", "-db", "-f", _FILES / "haproxy.cfg")
        self.haproxy = self.own(Child(*haproxy, ready="Loading success"))
        load = self.own(_Load(20_000 if _IS_LONG else 0))
        eventually(lambda: len(load.visits) >= _RATE, "the load is under way")
        for _ in range(3 if _IS_LONG else 1):
            for machine in machines:
                machine.upgrade()
            for machine in machines if _IS_LONG else machines[:1]:
                self.restart(machine)
        load.end()
        taken, lost = zip(*(visit.result() for visit in load.visits), strict=True)
        told = f"{len(taken)} clients, the longest took {max(taken):.2f} s"
        sys.stdout.write(f"{self.id()}: {told}\n")
        self.assertEqual([one for one in lost if one], [], told)
        for machine in machines:
            self.assertNotIn("Traceback", "".join(child.output for child in machine.children))
            self.assertTrue(machine.has_served())
