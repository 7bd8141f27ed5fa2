"""The time of day is set while connections are open."""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE, InteropTestCase, eventually
from tests.interop.servers import start_redis
from tests.support.changes import change_environment
from tests.support.echo import EchoServer
from tests.support.services import Service

pytestmark = pytest.mark.by_turns

_SHIM = """
import mmap
import os
import struct
import time

real = time.time
with open(os.environ["CLOCK_STEP"], "rb") as file:
    step = mmap.mmap(file.fileno(), 8, access=mmap.ACCESS_READ)


def stepped():
    return real() + struct.unpack("d", step)[0]


time.time = stepped
"""
"""What every Python runs first: the time of day is as far off as a file says.

It is in memory that forked processes share: workers may open no file.
"""


class SteppedClock:
    """The clock of all programs of Python that a test starts from now on, with its files in a folder."""

    def __init__(self, test: SynchronousTestCase, folder: Path) -> None:
        shims = folder / "shims"
        shims.mkdir(exist_ok=True)
        (shims / "sitecustomize.py").write_text(_SHIM)
        self._file = folder / "step"
        self.step(0)
        path = os.pathsep.join([str(shims), os.environ.get("PYTHONPATH", "")])
        change_environment(test, PYTHONPATH=path, CLOCK_STEP=str(self._file))

    def step(self, seconds: float) -> None:
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))


_TWO_HOURS = 7200.0


class ClockTests(InteropTestCase):
    """Two hours on, two hours back, with one process and with several, of which each has a clock, and by both relays."""

    def setUp(self) -> None:
        self.clock = SteppedClock(self, self.folder)
        self.echoing = self.own(EchoServer())

    def each(self) -> Iterator[None]:
        for workers, relay in ((1, "auto"), (2, "auto"), (1, "portable")):
            rules = (
                "[listen public]\nendpoint = 127.0.0.1:0\ndetect_timeout = 1h\n"
                "[listen impatient]\nendpoint = 127.0.0.1:0\ndetect_timeout = 1s\nsilent = reset\n"
                f"[route all]\nunder = *\nmatch = any\nbackend = 127.0.0.1:{self.echoing.port}\n"
            )
            settings = f"workers = {workers}\nrelay = {relay}"
            self.mux = self.own(Service(self.folder, rules, settings))
            yield

    def client(self, listener: str = "public") -> socket.socket:
        place = ("127.0.0.1", self.mux.ports[listener])
        client = socket.create_connection(place, PATIENCE)
        self.addCleanup(client.close)
        return client

    def echo(self, client: socket.socket) -> None:
        client.sendall(b"x")
        self.assertEqual(client.recv(1), b"x")

    def wake(self) -> None:
        """Let every process have something to do, whereupon it looks at its timers."""
        for _ in range(10):
            self.echo(self.client())
            self.echo(self.client())

    def test_forward_ends_no_quiet_connection(self) -> None:
        for _ in self.each():
            quiet = [self.client() for _ in range(4)]
            for client in quiet:
                self.echo(client)
            self.clock.step(_TWO_HOURS)
            self.wake()
            for client in quiet:
                self.echo(client)

    def test_back_delays_no_silent_client(self) -> None:
        for _ in self.each():
            silent = [self.client("impatient") for _ in range(4)]
            self.wake()  # so that they have been accepted
            self.clock.step(-_TWO_HOURS)
            self.wake()
            for client in silent:
                self.assertRaises(ConnectionResetError, client.recv, 1)


class OperatorClockTests(InteropTestCase):
    """What an operator sets for a time lasts as long, whatever the time of day."""

    def setUp(self) -> None:
        self.clock = SteppedClock(self, self.folder)
        self.start()

    def start(self, settings: str = "") -> Service:
        echo = self.own(EchoServer())
        rules = (
            "[listen public]\nendpoint = 127.0.0.1:0\n"
            "[route all]\nunder = *\nmatch = any\nbackend = echo\n"
            f"[backend echo]\nserver = 127.0.0.1:{echo.port}\n"
        )
        settings = f"workers = 2\n{settings}"
        self.service = self.own(Service(self.folder, rules, settings, admin=True))
        return self.service

    def post(self, path: str, **body: object) -> None:
        self.service.api(path, body)

    def client(self) -> socket.socket:
        client = self.service.connect()
        self.addCleanup(client.close)
        client.sendall(b"x")
        return client

    def is_banned(self) -> bool:
        with self.service.connect() as client, contextlib.suppress(ConnectionError):
            client.sendall(b"x")
            return client.recv(1) != b"x"
        return True

    def test_ban_stays_when_the_clock_goes_on(self) -> None:
        """An hour on, a ban of ten minutes is there, here and after an upgrade, and its end is shown by the new time."""
        self.post("bans", network="127.0.0.1", seconds=600)
        for upgrades in (False, True):
            self.clock.step(3600)
            if upgrades:
                self.service.upgrade()
            self.post("bans", network="192.0.2.7", seconds=1)
            eventually(lambda: len(self.service.api("bans")) == 1, "it looks at ends")
            self.assertTrue(self.is_banned())
            [ban] = self.service.api("bans")
            left = ban["until"] - (time.time() + 3600)
            self.assertTrue(300 < left <= 601, left)

    def test_ban_ends_when_the_clock_goes_back(self) -> None:
        self.post("bans", network="127.0.0.1", seconds=3)
        self.clock.step(-3600)
        eventually(lambda: not self.is_banned(), "the ban ends")
        self.assertEqual(self.service.api("bans"), [])

    def test_hold_ends_when_the_clock_goes_back(self) -> None:
        self.post("backends/echo/hold", seconds=3)
        self.clock.step(-3600)
        self.assertEqual(self.client().recv(1), b"x")
        [backend] = self.service.api("backends")
        self.assertIsNone(backend["hold"])

    def test_hold_stays_when_the_clock_goes_on(self) -> None:
        """Also after an upgrade, which hands on what is left of it."""
        self.post("backends/echo/hold", seconds=600)
        self.clock.step(3600)
        self.service.upgrade()
        waiting = self.client()
        eventually(lambda: self.service.api("backends")[0]["held"] == 1, "it waits")
        [backend] = self.service.api("backends")
        left = backend["hold"]["until"] - (time.time() + 3600)
        self.assertTrue(300 < left <= 601, left)
        self.post("backends/echo/release")
        self.assertEqual(waiting.recv(1), b"x")

    def test_shared_ban_stays_on_a_machine_whose_clock_goes_on(self) -> None:
        """Machines share how long a ban lasts; one of them is set, and both begin and end it as the others do."""
        redis = self.own(start_redis(self.folder))
        shares = f"shared_limits = redis://127.0.0.1:{redis.port}"
        other = self.start(shares)
        SteppedClock(self, self.make_folder()).step(0)  # for the second machine alone
        machines = (other, self.start(shares))
        for one in machines:
            eventually(lambda one=one: self.shared(one) == "complete", "it shares")  # type: ignore[misc]
        self.post("bans", network="192.0.2.7", seconds=600)
        self.post("bans", network="192.0.2.8", seconds=8)
        eventually(lambda: len(other.api("bans")) == 2, "the other machine has them")
        self.clock.step(3600)
        eventually(lambda: len(other.api("bans")) == 1, "one ends", PATIENCE)
        for one in machines:
            self.assertEqual([ban["network"] for ban in one.api("bans")], ["192.0.2.7"])
            self.assertEqual(self.shared(one), "complete")

    def shared(self, service: Service) -> str:
        return str(service.api("status")["bans"]["shared"])
