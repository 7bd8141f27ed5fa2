import os
import signal
import socket

from tests.support.kit import SupervisedTestCase, Talker, free_port
from tests.udp.flow_case import FlowCase
from txmux.errors import ListenError

_OTHER = "[listen t]\nendpoint = 127.0.0.1:0\n"
_AT_PORT = "[listen u]\nendpoint = udp:127.0.0.1:{}\ndefault = udp:127.0.0.1:{}\n"


class WorkersTests(SupervisedTestCase):
    async def test_removed_listener_may_return_while_its_flows_go_on(self) -> None:
        server = Talker.listening(self, answer=lambda d: d)
        text = "[txmux]\nworkers = 2\n" + _AT_PORT.format(
            free_port(kind=socket.SOCK_DGRAM), server.port
        )
        [port] = await self.run_service(text)
        client, other, taken = (Talker.listening(self) for _ in range(3))
        await client.asks(b"one", port)
        for number in range(2):
            await self.reload("[txmux]\nworkers = 2\n" + _OTHER)
            other.say(b"nobody's", port)
            await client.asks(b"%d" % number, port)
            await self.reload(
                f"{text}[listen b]\nendpoint = udp:127.0.0.1:{taken.port}\n", is_ok=False
            )
            await self.reload(text)
            await client.asks(b"again", port)
        await other.asks(b"two", port)
        self.assertEqual(len(set(server.senders)), 2)
        await self.reload("[txmux]\nworkers = 2\n" + _OTHER)
        self.supervisor.end_all()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            await self.until(lambda: _binds(another, port))
        await self.reload(text)
        await other.insists(b"three", port)
        self.assertEqual(len(set(server.senders)), 3)

    async def test_removed_listener_gets_the_flows_of_a_replaced_worker(self) -> None:
        server = Talker.listening(self, answer=lambda d: d)
        client = Talker.listening(self)
        text = _AT_PORT.format(free_port(kind=socket.SOCK_DGRAM), server.port)
        [port] = await self.run_service(text)
        await client.asks(b"one", port)
        await self.reload(_OTHER)
        [worker] = self.supervisor.pool.workers
        os.kill(worker.pid, signal.SIGTERM)
        await self.until(lambda: worker in self.supervisor.pool.retiring)
        await self.reload(text)
        await self.until(lambda: worker not in self.supervisor.pool.retiring)
        await client.asks(b"two", port)
        self.assertEqual(len(set(server.senders)), 1)

    async def reload(self, text: str, *, is_ok: bool = True) -> None:
        self.write(text)
        report = await self.running.reload()
        self.assertEqual(report.ok, is_ok, report.errors)


def _binds(another: socket.socket, port: int) -> bool:
    try:
        another.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


class ReloadAndStopTests(FlowCase):
    async def test_changed_and_replaced_listeners_keep_their_flows(self) -> None:
        """New ones go by the new rules."""
        text = "[listen %s]\nendpoint = udp:127.0.0.1:%d\n%sdefault = udp:127.0.0.1:%d\n"
        for name, allow in (("u", "allow = 127.0.0.0/8\n"), ("v", "")):
            old, new = (Talker.listening(self, answer=lambda d: d) for _ in range(2))
            port = free_port(kind=socket.SOCK_DGRAM)
            self.run_service(text % ("u", port, "", old.port))
            client, other = Talker.listening(self), Talker.listening(self)
            await client.asks(b"one", port)
            self.reload(text % (name, port, allow, new.port))
            await client.asks(b"two", port)
            await other.asks(b"three", port)
            self.assertEqual((old.heard, new.heard), ([b"one", b"two"], [b"three"]))
            self.assertEqual(len(set(old.senders)), 1)
            await self._stop()

    async def test_removed_listener_may_return_with_its_flows(self) -> None:
        """Its port is free after its last flow."""
        server = Talker.listening(self, answer=lambda d: d)
        client, other = Talker.listening(self), Talker.listening(self)
        text = _AT_PORT.format(free_port(kind=socket.SOCK_DGRAM), server.port)
        taken = Talker.listening(self)
        [port] = self.run_service(text)
        first = self.running.listeners[0]
        await client.asks(b"one", port)
        for number in range(2):
            self.reload(_OTHER)
            other.say(b"nobody's", port)
            await client.asks(b"%d" % number, port)
            with self.assertRaises(ListenError):
                self.reload(f"{text}[listen b]\nendpoint = udp:127.0.0.1:{taken.port}\n")
            self.reload(text)
            await client.asks(b"again", port)
        await other.asks(b"two", port)
        self.assertEqual(len(set(server.senders)), 2)
        last = self.running.listeners[0]
        for number in range(2):
            self.reload(f"{_OTHER}[route r{number}]\nmatch = tls\nbackend = close\n")
        for listener in (first, last):
            listener.abort("killed")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as another:
            another.bind(("127.0.0.1", port))
        self.reload(text)
        await client.asks(b"two", port)

    async def test_drain_begins_no_flow_and_ends_all_after_drain_timeout(self) -> None:
        server, client, other = (
            Talker.listening(self, answer=answer)
            for answer in (lambda d: d, lambda _: b"", lambda _: b"")
        )
        [port] = self.run_service(
            "[txmux]\ndrain_timeout = 2s\naccess_log = LOG\naccess_log_format = json\n"
            f"[listen u]\nendpoint = udp:127.0.0.1:0\ndefault = udp:127.0.0.1:{server.port}\n"
        )
        await client.asks(b"one", port)
        stopping = self.running.stopService()
        other.say(b"two", port)
        await client.asks(b"three", port)
        await stopping
        self.assertEqual(server.heard, [b"one", b"three"])
        await self.assert_ended(reason="drained", datagrams_in=2)
