import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.defer import succeed
from twisted.internet.process import reapProcessHandlers
from twisted.internet.task import Clock, deferLater
from twisted.logger import capturedLogs, eventAsText
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.changes import change_constants, change_environment
from tests.support.kit import PATIENCE, PeerFactory, free_port, listen, make_folder, reactor
from txmux.backends.upstreams import ServerStarter
from txmux.features.wake import Wake, sending
from txmux.rules.model import Backend

_SYSTEMCTL = r"""#!/bin/sh
echo "$@" >> "${0%/*}/asked"
case "$4" in
    app.service) ;;
    mute.service) exit 5 ;;
    lost.service) kill -9 $$ ;;
    *) printf 'Failed to start %s: Access denied\nSee its log.\n' "$4" >&2; exit 4 ;;
esac
"""


async def sent(waker: Any) -> None:
    await waker._sending.get("db", succeed(None))


class WakeTests(TestCase):
    def waker(self, wake: Wake, clock: Any = reactor, held: Any = ()) -> ServerStarter:
        backend = Backend("db", (), more={"wake": wake})
        found = lambda name: backend if name == "db" and name not in held else None  # noqa: E731
        waker = ServerStarter(clock, found)
        self.addCleanup(waker.stop)
        return waker

    async def logged(self, wake: Wake, answering: Any = None) -> str:
        """Have it woken, and return what is logged."""
        waker = self.waker(wake)
        with capturedLogs() as events:
            waker.report("db", waiting=True)
            if answering is not None:
                await answering()
            await sent(waker)
        own = [event for event in events if event["log_namespace"].startswith("txmux")]
        return "\n".join(map(eventAsText, own))

    def receiver(self) -> tuple[socket.socket, Wake]:
        receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(receiver.close)
        receiver.bind(("127.255.255.255", 0))  # which gets only broadcasts
        receiver.settimeout(PATIENCE)
        return receiver, Wake("wol", "00:11:22:33:44:ff", receiver.getsockname())

    def test_magic_packet_at_once_and_every_thirty_seconds_while_a_client_waits(self) -> None:
        receiver, wake = self.receiver()
        clock = Clock()
        waker = self.waker(wake, clock)
        packet = b"\xff" * 6 + bytes.fromhex("0011223344ff") * 16

        receiver.settimeout(0)

        def sent() -> int:
            count = 0
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.assertEqual(receiver.recv(1000), packet)
                    count += 1
            return count

        waker.report("other", waiting=True)
        self.assertEqual(sent(), 0)
        waker.report("db", waiting=True, process=1)
        waker.report("db", waiting=True, process=2)
        self.assertEqual(sent(), 1)
        clock.advance(29.9)
        self.assertEqual(sent(), 0)
        clock.advance(0.2)
        self.assertEqual(sent(), 1)
        clock.advance(9)
        successor = self.waker(wake, clock)
        successor.restore(waker.as_json())
        for waiting in (True, False, True):  # as its client moves from one worker to another
            successor.report("db", waiting=waiting, process=1)
        clock.advance(20)
        self.assertEqual(sent(), 0)
        clock.advance(1.9)
        self.assertEqual(sent(), 2)  # by both
        for seconds, count in ((0.9, 0), (1, 1)):  # it has moved again, and another one comes
            successor.report("db", waiting=False, process=1)
            clock.advance(seconds)
            successor.report("db", waiting=True, process=1)
            self.assertEqual(sent(), count)
        successor.stop()
        waker.report("db", waiting=False, process=1)
        clock.advance(30)
        self.assertEqual(sent(), 1)
        waker.process_ended(2)
        waker.report("other", waiting=False)
        clock.advance(100)
        self.assertEqual((sent(), clock.getDelayedCalls()), (0, []))

    def test_at_once_if_no_server_is_up_after_an_operators_hold(self) -> None:
        receiver, wake = self.receiver()
        clock, held = Clock(), {"db"}
        waker = self.waker(wake, clock, held)
        receiver.setblocking(False)  # noqa: FBT003 - the socket module's signature
        waker.hold(held)
        waker.report("db", waiting=True, process=1)
        for seconds in (59, 5):  # after a while without a packet, or soon after the last one
            clock.advance(seconds)
            held.clear()
            waker.report("db", waiting=False, process=2)
            self.assertRaises(BlockingIOError, receiver.recv, 1000)
            for process in (1, 2):
                waker.report("db", waiting=True, process=process)
            clock.advance(29)
            receiver.recv(1000)
            self.assertRaises(BlockingIOError, receiver.recv, 1000)
            clock.advance(1)
            receiver.recv(1000)
            held.add("db")
            waker.hold(held)

    def test_who_moves_to_another_process_waits_on(self) -> None:
        receiver, wake = self.receiver()
        clock = Clock()
        waker = self.waker(wake, clock)
        waker.report("db", waiting=True, process=1)
        receiver.recv(1000)
        with capturedLogs() as events:
            waker.report("db", waiting=False, process=1)
            waker.report("db", waiting=True, process=2)
            clock.advance(10)
            self.assertEqual(events, [])
            waker.process_ended(2)
            clock.advance(1)
        (event,) = events
        self.assertEqual(
            eventAsText(event).rpartition("] ")[2], "backend db: no client is waiting any longer"
        )

    def test_a_stop_does_not_say_that_nobody_waits(self) -> None:
        receiver, wake = self.receiver()
        clock = Clock()
        waker = self.waker(wake, clock)
        waker.report("db", waiting=True, process=1)
        receiver.recv(1000)
        with capturedLogs() as events:
            waker.stop()
            waker.process_ended(1)
        self.assertEqual((events, clock.getDelayedCalls()), ([], []))

    async def asked(self, path: str, socket_path: str = "") -> tuple[list[Any], str]:
        requests: list[Any] = []

        class Start(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                requests.append((request.method, request.uri, request.content.read()))
                request.setResponseCode(200 if request.uri.startswith(b"/start") else 500)
                return b"started"

        if socket_path:
            self.addCleanup(reactor.listenUNIX(socket_path, Site(Start())).stopListening)
            url = f"unix:{socket_path}:{path}"
        else:
            url = f"http://127.0.0.1:{listen(self, Site(Start()))}{path}"
        return requests, await self.logged(Wake("POST", url))

    async def test_http_request(self) -> None:
        """Over TCP or a UNIX socket; nothing secret is logged, but failures are. The status decides of answers that end with the connection, or never, as those of small servers and scripts do."""
        path = f"{make_folder(self)}/wake.sock"
        for at, shown in (("", "sent POST http://127.0.0.1:"), (path, f"sent POST unix:{path}")):
            requests, logged = await self.asked("/start?token=secret", at)
            self.assertEqual(requests, [(b"POST", b"/start?token=secret", b"")])
            self.assertIn(shown, logged)
            self.assertNotIn("secret", logged)
        _, logged = await self.asked("/stop")
        self.assertIn("cannot wake its server", logged)
        self.assertIn("the answer is 500", logged)
        logged = await self.logged(Wake("GET", f"http://127.0.0.1:{free_port()}/"))
        self.assertIn("connection refused", logged)
        for answer, expected in (
            (b"HTTP/1.0 200 OK\r\n\r\nstarted\n", "sent GET http"),
            (b"HTTP/1.0 503 No\r\n\r\n", "the answer is 503"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + b"x" * 90_000, "sent GET http"),
        ):
            server = PeerFactory()
            wake = Wake("GET", f"http://127.0.0.1:{listen(self, server)}/")

            async def give(server: PeerFactory = server, answer: bytes = answer) -> None:
                peer = await server.heard(20)
                peer.send(answer)
                peer.close()

            self.assertIn(expected, await self.logged(wake, give))

    async def test_unit_of_systemd(self) -> None:
        """Systemd says whether the unit has started, and why not."""
        folder = Path(make_folder(self))
        program, path = folder / "systemctl", os.environ["PATH"]
        program.write_text(_SYSTEMCTL)
        for unit, mode, expected in (
            ("app.service", 0o755, "sent systemctl start app.service"),
            ("no.service", 0o755,
             "start no.service): Failed to start no.service: Access denied; it"),
            ("mute.service", 0o755, "systemctl ended with status 5"),
            ("lost.service", 0o755, "systemctl ended with signal 9"),
            ("app.service", 0o644, "there is no systemctl on this machine"),
        ):  # fmt: skip
            program.chmod(mode)
            change_environment(self, PATH=f"{folder}")
            self.assertIn(expected, await self.logged(Wake("systemd", unit)))
        asked = (folder / "asked").read_text().splitlines()
        units = [f"{name}.service" for name in ("app", "no", "mute", "lost")]
        self.assertEqual(asked, [f"--no-ask-password start -- {unit}" for unit in units])
        # One that never starts is given up, and tried again: a job of systemd's may have no time limit.
        program.write_text("#!/bin/sh\nexec sleep 1000\n")
        program.chmod(0o755)
        change_environment(self, PATH=f"{folder}:{path}")
        change_constants(self, sending, _LONGEST_START=0.0)
        logged = await self.logged(Wake("systemd", "app.service"))
        self.assertIn("systemctl start app.service): it has not started within 0 s; it", logged)
        while reapProcessHandlers:  # the program that was given up has not ended yet
            await deferLater(reactor, 0.01)
