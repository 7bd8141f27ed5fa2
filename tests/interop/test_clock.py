"""The time of day is set while connections are open."""

import socket

from tests.interop.children import PATIENCE, InteropTestCase
from tests.interop.mux import Mux
from tests.interop.stepped import SteppedClock
from tests.support.echo import EchoServer

_TWO_HOURS = 7200.0


class ClockTests(InteropTestCase):
    """Two hours on, two hours back."""

    relay = "auto"
    workers = 1

    def setUp(self) -> None:
        self.clock = SteppedClock(self, self.folder)
        echo = self.own(EchoServer())
        rules = (
            "[listen public]\nendpoint = 127.0.0.1:0\ndetect_timeout = 1h\n"
            "[listen impatient]\nendpoint = 127.0.0.1:0\ndetect_timeout = 1s\nsilent = reset\n"
            f"[route all]\nmatch = any\nbackend = 127.0.0.1:{echo.port}\n"
        )
        settings = f"workers = {self.workers}\nrelay = {self.relay}"
        self.mux = self.own(Mux(self.folder, rules, settings))

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
        quiet = [self.client() for _ in range(4)]
        for client in quiet:
            self.echo(client)
        self.clock.step(_TWO_HOURS)
        self.wake()
        for client in quiet:
            self.echo(client)

    def test_back_delays_no_silent_client(self) -> None:
        silent = [self.client("impatient") for _ in range(4)]
        self.wake()  # so that they have been accepted
        self.clock.step(-_TWO_HOURS)
        self.wake()
        for client in silent:
            self.assertRaises(ConnectionResetError, client.recv, 1)


class WorkersClockTests(ClockTests):
    """The same with several processes, of which each has a clock."""

    workers = 2


class PortableClockTests(ClockTests):
    relay = "portable"
