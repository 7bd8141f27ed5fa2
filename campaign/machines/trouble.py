"""What all troubles have in common: a service, a server that answers, and what must hold when the trouble is over."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections import Counter
from pathlib import Path

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.interop.mux import Mux
from tests.processes.running import family_of, workers_of
from tests.support.echo import EchoServer

ECHO, BAD = b"E", b"B"
"""What clients begin with that are led to the server that answers, and to the one that is in trouble."""

_RULES = """
[listen public]
endpoint = 127.0.0.1:0
detect_timeout = 10m

[route echo]
match   = payload text=E
backend = 127.0.0.1:{echo}

[route bad]
match   = payload text=B
backend = bad

[backend bad]
server          = {bad}
connect_timeout = 1s
retries         = 0
eject           = off
idle_timeout    = {idle}
"""


class TroubleCase(InteropTestCase):
    """A service in trouble.

    Attributes:
        chance: Decides whatever is left to chance; the campaign gives one for each trial.
        load: How many clients there are, or how often something happens, beside what the short form has.
        seconds: How long what goes on for a time goes on.
        figures: What was counted and measured, by name.
        slowest: The longest that it took until clients were served again, in seconds.
    """

    chance = random.Random(0)
    load = 1
    seconds = 5.0
    slowest = 0.0

    def setUp(self) -> None:
        """Start the server that answers."""
        self.echo = self.own(EchoServer())
        self.clients = 0
        self.figures: dict[str, str] = {}

    def serve(
        self,
        settings: str = "",
        bad: str = "127.0.0.1:1",
        *,
        idle: str = "1h",
        before: tuple[str, ...] = (),
        is_killed: bool = False,
    ) -> Mux:
        """Start a service, whose end must be as it ought to be unless it is killed, and see that it serves."""
        self.clients = 0
        rules = _RULES.format(echo=self.echo.port, bad=bad, idle=idle)
        mux = Mux(self.folder, rules, settings, before=before)
        self.addCleanup(mux.child.end if is_killed else mux.stop)
        mux.child.allow(3600)
        self.assertTrue(self.is_served(mux))
        return mux

    def worker(self, mux: Mux) -> int:
        """Give the first worker, once it serves."""
        mux.child.wait_for("serving with ")
        return workers_of(mux.child.pid)[0]

    def relays(self) -> list[str]:
        """Give the relays to try, in any order."""
        relays = ["kernel", "portable"]
        self.chance.shuffle(relays)
        return relays

    def connect(self, mux: Mux, first: bytes = ECHO) -> socket.socket:
        """Connect a client that says something, and that has a line in the log in the end."""
        client = mux.connect()
        self.clients += 1
        self.addCleanup(client.close)
        client.sendall(first)
        return client

    def is_served(self, mux: Mux) -> bool:
        """Tell whether a new client gets its answer."""
        with contextlib.suppress(OSError), mux.connect() as client:
            self.clients += 1
            client.settimeout(PATIENCE)
            client.sendall(ECHO)
            return client.recv(1) == ECHO
        return False

    def assert_recovered(self, mux: Mux) -> None:
        """See that clients are served as before, now that the trouble is over."""
        began = time.monotonic()
        eventually(lambda: self.is_served(mux), "clients are served again")
        self.slowest = max(self.slowest, time.monotonic() - began)
        self.assertTrue(all(self.is_served(mux) for _ in range(10)))

    def assert_logged(self, mux: Mux, **expected: int) -> None:
        """See that each client has one line with a reason, and that these have so many."""
        eventually(
            lambda: len(mux.lines()) >= self.clients, f"{self.clients} connections are logged"
        )
        reasons = Counter(str(line["reason"]) for line in mux.lines())
        self.assertEqual(reasons.total(), self.clients, reasons)
        for reason, count in expected.items():
            self.assertEqual(reasons[reason.replace("_", "-")], count, reasons)

    def assert_nothing_open(self, mux: Mux, before: int) -> None:
        """See that a service has no more descriptors than before, but for pipes that a relay keeps."""
        eventually(
            lambda: count_sockets(mux.child.pid) <= before,
            f"no more than {before} sockets are open",
        )


def count_sockets(pid: int) -> int:
    """Count the sockets that a process has, and those of its children."""
    return sum(name.startswith("socket:") for one in family_of(pid) for name in sorted_files(one))


def sorted_files(pid: int) -> list[str]:
    """Give what a process has open, one for each descriptor."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(str(link.readlink()))
    return sorted(found)
