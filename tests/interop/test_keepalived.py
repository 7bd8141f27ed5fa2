"""The example of two machines that share an address, with keepalived on both, each in a network of its own.

The long form, twenty times each, runs with ``TXMUX_LONG=1``, and prints how long nobody could connect.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import ClassVar

from tests.interop.children import PATIENCE, Child, answered, eventually, output_of, run, write
from tests.interop.originals import Named, client_hello
from tests.support.kit import EXAMPLES, Namespace, ScenarioTestCase, Twist, mounted, require_program
from tests.support.proc import family_of

_FILES = EXAMPLES / "keepalived"
_SERVERS = ("192.0.2.21", "192.0.2.22")
_IS_LONG = bool(os.environ.get("TXMUX_LONG"))
# What is claimed is measured; beside other tests, a processor may be too busy for it.
_MOST = 3.0 if _IS_LONG else 60.0  # seconds
_WORSE = "effective priority from 200 to 150"
_BETTER = "effective priority from 150 to 200"
_HELLO = client_hello("www.example.com")
_WELL, _ILL = 200, 150
"""The priorities of a machine."""


class _Clients:
    """Clients that connect, one after another, until they are ended.

    Attributes:
        attempts: When each began, and who has led it to the server; nobody if it has failed.
    """

    def __init__(self) -> None:
        self.attempts: list[tuple[float, str]] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(0.02):
            self.attempts.append((time.monotonic(), _ask()))

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


def _ask() -> str:
    return answered(("192.0.2.10", 443), _HELLO, patience=(0.25 if _IS_LONG else 3.0)) or ""


class _Machine:
    """One of both: a network of its own, txmux and keepalived, with the files of the example."""

    def __init__(self, test: type[KeepalivedTests], number: int) -> None:
        self.address = f"192.0.2.{number}"
        self.network = Namespace(test)
        self._port = test.network.plug(self.network, self.address)
        folder = test.folder / str(number)
        self._run = folder / "run"
        self._places = {"/etc/keepalived": folder / "etc", "/run": self._run}
        (self._run / "txmux").mkdir(parents=True)
        (self._run / "keepalived").mkdir()
        # What is late on a busy machine does not hang.
        for name, mode, usual, longer in (
            ("keepalived.conf", 0o644, "    timeout 3\n", "    timeout 12\n"),
            ("check-txmux", 0o755, "--max-time 1 ", "--max-time 5 "),
        ):
            text = (_FILES / name).read_text()
            assert usual in text
            write(folder / "etc" / name, text if _IS_LONG else text.replace(usual, longer), mode)
        self.txmux: Twist
        self.keepalived: Child

    @property
    def before(self) -> tuple[str, ...]:
        return (*self.network.command, *mounted(self._places))

    def start_txmux(self) -> None:
        self.txmux = Twist("--rules", _FILES / "rules.ini", before=self.before)
        self.txmux.child.wait_for("Starting reactor")

    def start_keepalived(self) -> None:
        # A killed one counts as alive as long as nobody has reaped it, which the first process of a container may never do.
        for file in self._run.rglob("*.pid"):
            file.unlink()
        options = ("--dont-fork", "--log-console", "--vrrp")
        self.keepalived = Child(*self.before, require_program("keepalived"), *options)

    def kill_keepalived(self) -> Callable[[], object]:
        """Kill keepalived with all of its processes, so that it can tell nobody."""
        for process in family_of(self.keepalived.process.pid):
            os.kill(process, signal.SIGKILL)
        self.keepalived.wait()
        return self.start_keepalived

    def stop_keepalived(self) -> Callable[[], object]:
        self.keepalived.end()
        return self.start_keepalived

    def kill_txmux(self) -> Callable[[], object]:
        self.txmux.child.process.kill()
        self.txmux.child.wait()
        return self.start_txmux

    def halt_txmux(self) -> Callable[[], object]:
        self.txmux.child.process.send_signal(signal.SIGSTOP)
        return partial(self.txmux.child.process.send_signal, signal.SIGCONT)

    def stop_txmux(self) -> Callable[[], object]:
        self.txmux.terminate()

        def start() -> None:
            self.txmux.assert_stopped()
            self.start_txmux()

        return start

    def has_address(self) -> bool:
        words = ("-n", self.network.name, "-4", "address", "show", "dev", "eth0")
        return b" 192.0.2.10/" in output_of("ip", *words)

    @property
    def is_worse(self) -> bool:
        """Whether keepalived has found last that txmux does not serve."""
        said = self.keepalived.output
        return said.rfind(_WORSE) > said.rfind(_BETTER)

    def cut(self) -> Callable[[], object]:
        output_of("ip", "link", "set", self._port, "down")
        return partial(output_of, "ip", "link", "set", self._port, "up")


class _Words:
    """What machines say by VRRP, which everybody on their network can hear."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, 112)
        group = socket.inet_aton("224.0.0.18") + socket.inet_aton("192.0.2.100")
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
        self.end = self._socket.close

    def in_a_row(self, count: int, priority: int) -> str:
        """Wait for this many new ones of one machine alone, with one priority, and give its address."""
        self._socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while True:  # those from before
                self._socket.recv(100)
        self._socket.settimeout(PATIENCE)
        heard: list[tuple[str, int]] = []
        while len(heard) < count or {*heard[-count:]} != {(heard[-1][0], priority)}:
            packet, (sender, _) = self._socket.recvfrom(100)
            said = packet[4 * (packet[0] & 15) :]  # RFC 5798, section 5.1
            heard.append((sender, said[2]))
        return heard[-1][0]


def _tell_peer(client: socket.socket) -> None:
    if client.recv(10_000):  # a check says nothing
        client.sendall(client.getpeername()[0].encode())


class KeepalivedTests(ScenarioTestCase):
    machines: ClassVar[tuple[_Machine, _Machine]]
    clients: _Clients
    words: _Words

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        for program in ("keepalived", "curl"):
            require_program(program)
        cls.network.make_lan("192.0.2.100", *_SERVERS)
        cls.machines = (_Machine(cls, 11), _Machine(cls, 12))
        for address in _SERVERS:
            Named(cls, host=address, port=8443, answer=_tell_peer)

    def setUp(self) -> None:
        for machine in self.machines:
            machine.start_txmux()
            self.addCleanup(machine.kill_txmux)  # it would wait for the other machine
            machine.start_keepalived()
            self.addCleanup(machine.stop_keepalived)
        self.clients = self.own(_Clients())
        self.words = self.own(_Words())

    def roles(self) -> tuple[_Machine, _Machine]:
        """Wait until one machine has the address and serves, and both are ready; give it, and the other one."""
        for machine in self.machines:
            eventually(lambda m=machine: self._is_ready(m), f"{machine.address} is ready")  # type: ignore[misc]
        eventually(lambda: sum(m.has_address() for m in self.machines) == 1, "one has the address")
        eventually(lambda: bool(_ask()), "clients are served")
        one, other = self.machines
        return (one, other) if one.has_address() else (other, one)

    def _is_ready(self, machine: _Machine) -> bool:
        if machine.is_worse or "VRRP_Script(txmux) succeeded" not in machine.keepalived.output:
            return False
        return run(*machine.before, "/etc/keepalived/check-txmux").returncode == 0

    def over(self, since: float) -> float:
        """Return when the last outage was over since a time, with the begin of the first try after it that did not fail."""
        attempts = [one for one in self.clients.attempts if one[0] >= since]
        good = [(since, ""), *attempts, (time.monotonic(), "")]
        ends = [after for (_, one), (after, _) in itertools.pairwise(good) if not one]
        return max(ends[1:], default=since)

    def happens(self, what: Callable[[_Machine], Callable[[], object]], most: float) -> None:
        """Have something happen to the machine with the address, and to the next; all must be able to connect in `most` seconds."""
        took, problems = [], []
        for _ in range(20 if _IS_LONG else 2):
            active, other = self.roles()
            began = time.monotonic()
            restore = what(active)
            try:
                led = [other.address] * 20
                eventually(
                    lambda led=led: [one for _, one in self.clients.attempts[-20:]] == led,  # type: ignore[misc]
                    "the other one leads",
                )
                took.append(self.over(began) - began)
                if took[-1] >= most:
                    problems.append(self._told(began))
            finally:
                returned = time.monotonic()
                restore()
            self.roles()
            speaks = self.words.in_a_row(6, _WELL)
            # Another one has served, or several clients in a row have failed.
            since = [machine for at, machine in self.clients.attempts if at >= returned]
            failed = any(not one and not after for one, after in itertools.pairwise(since))
            if speaks != other.address or failed or {*since} - {"", other.address}:
                problems.append(f"the return is noticed: {self._told(returned)}")
        told = ", ".join(f"{seconds:.2f}" for seconds in sorted(took))
        sys.stdout.write(f"{what.__name__}: seconds until clients could connect: {told}\n")
        self.assertEqual(problems, [], what.__name__)

    def _told(self, since: float) -> str:
        groups = itertools.groupby(self.clients.attempts, lambda one: one[1])
        changes = (next(its) for _, its in groups)
        tried = [f"{at - since:.2f}: {one or 'failed'}" for at, one in changes if at >= since]
        said = (machine.keepalived.output[-1000:] for machine in self.machines)
        return "\n".join((", ".join(tried), *said))

    def test_events(self) -> None:
        """A txmux that hangs is as good as dead, but it takes both tries of the check to find that out.

        One that is stopped serves until the other machine has the address; only who connects in that moment may have to try again.
        Where neither is ready, one of them has the address all the same.
        """
        soon = 1.0 if _IS_LONG else _MOST
        for what, most in (
            (_Machine.kill_txmux, _MOST), (_Machine.kill_keepalived, _MOST), (_Machine.cut, _MOST),
            (_Machine.stop_keepalived, soon), (_Machine.halt_txmux, _MOST + 4), (_Machine.stop_txmux, soon),
        ):  # fmt: skip
            self.happens(what, most)
        for machine in self.machines:
            machine.kill_txmux()
        for machine in self.machines:
            eventually(lambda m=machine: m.is_worse, "keepalived has found that")  # type: ignore[misc]
        speaks = self.words.in_a_row(6, _ILL)
        having = [machine.address for machine in self.machines if machine.has_address()]
        self.assertEqual(having, [speaks])
        for machine in self.machines:
            machine.start_txmux()
        self.roles()
