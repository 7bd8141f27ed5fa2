"""Network namespaces for the programs of a test."""

import contextlib
import ctypes
import itertools
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from unittest import SkipTest, TestCase

from tests.interop.children import Child, T, eventually, output_of, run
from tests.programs import require_program
from tests.support.undone import Cleans

_numbers = itertools.count()
_CLONE_NEWNET = 0x40000000


class Namespace:
    """A network namespace with a loopback interface, removed after the test or the class."""

    def __init__(self, test: Cleans | type[TestCase]) -> None:
        require_program("ip")
        self.name = f"txmux-{os.getpid()}-{next(_numbers)}"
        made = run("ip", "netns", "add", self.name)
        if made.returncode:
            said = made.stderr.decode(errors="replace")
            raise SkipTest(f"no network namespace can be made: {said}")
        self._clean = test.addClassCleanup if isinstance(test, type) else test.addCleanup
        self._clean(run, "ip", "netns", "del", self.name)
        self.ip("link set lo up")

    def ip(self, command: str) -> None:
        output_of("ip", "-n", self.name, *command.split())

    @property
    def command(self) -> tuple[str, ...]:
        return (require_program("ip"), "netns", "exec", self.name)

    def make_lan(self, *addresses: str) -> None:
        self.ip("link add lan type bridge")
        for address in addresses:
            self.ip(f"addr add {address}/24 dev lan")
        self.ip("link set lan up")

    def plug(self, other: "Namespace", address: str) -> str:
        """Connect another namespace to the bridge, with an address; return the interface on this side."""
        port = f"port{next(_numbers)}"
        self.ip(f"link add {port} type veth peer name eth0 netns {other.name}")
        self.ip(f"link set {port} master lan up")
        other.ip(f"addr add {address}/24 dev eth0")
        other.ip("link set eth0 up")
        return port

    def enter(self) -> None:
        """Move the tests, and all programs that they start from now on, into it."""
        self._clean(_enter, os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        _enter(os.open(f"/run/netns/{self.name}", os.O_RDONLY))

    def own(self, started: T) -> T:
        """Register what was started in it; it is ended before the namespace is removed."""
        self._clean(started.end)
        return started

    def set(self, name: str, value: str) -> None:
        output_of(*self.command, "sh", "-c", f"echo '{value}' > /proc/sys/net/{name}")

    def run_lines(self, commands: list[str]) -> None:
        output_of(*self.command, "sh", "-ec", "\n".join(commands))

    def python(self, program: str, *arguments: str) -> Child:
        """Start a Python program in it, which ends with its standard input."""
        return Child(*self.command, sys.executable, "-c", program, *arguments, stdin=True)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Have this thread be in it for a while, with what it opens."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _enter(os.open(f"/run/netns/{self.name}", os.O_RDONLY))
        try:
            yield
        finally:
            _enter(before)


def cable(
    one: Namespace, one_addresses: list[str], other: Namespace, other_addresses: list[str]
) -> tuple[str, str]:
    """Connect two namespaces by a veth pair with these addresses, in CIDR notation, and return its interfaces."""
    number = next(_numbers)
    ends = (f"c{number}a", f"c{number}b")
    one.ip(f"link add {ends[0]} type veth peer name {ends[1]} netns {other.name}")
    its = ((one, ends[0], one_addresses), (other, ends[1], other_addresses))
    for namespace, end, addresses in its:
        for address in addresses:
            # Without nodad, an IPv6 address waits for duplicate address detection.
            namespace.ip(f"addr add {address} dev {end}" + (" nodad" if ":" in address else ""))
        namespace.ip(f"link set {end} up")
    # Until the system has seen that the other end is up, too, it drops what is sent.
    for namespace, end, _ in its:
        shown = ("-n", namespace.name, "-o", "link", "show", end)
        eventually(lambda s=shown: b" state UP " in output_of("ip", *s), f"{end} is up")  # type: ignore[misc]
    return ends


def mounted(places: Mapping[str, Path]) -> tuple[str, ...]:
    """Return the prefix of a command that sees other files at some paths."""
    mounts = [shlex.join(("mount", "--bind", str(there), at)) for at, there in places.items()]
    script = "\n".join((*mounts, 'exec "$@"'))
    return ("unshare", "--mount", "sh", "-ec", script, "sh") if mounts else ()


def _enter(descriptor: int) -> None:
    # os.setns() needs Python 3.12.
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(descriptor)
