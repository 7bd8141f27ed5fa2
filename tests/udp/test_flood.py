"""Datagrams from very many addresses, of which nobody knows whether they are real."""

import socket
import time
import types
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import skipUnless

from twisted.trial.unittest import TestCase

from benchmarks.flood_datagrams import KNOWN, Flood
from tests.support.kit import Talker, eventually, reactor, turn
from tests.udp.flow_case import FlowCase
from txmux.net.sockets.poller import Poller
from txmux.rules.model import Listener
from txmux.serving.listening_ports import ListeningPorts
from txmux.serving.udp_listening_port import UDPListeningPort
from txmux.udp import ancillary
from txmux.udp.port import DatagramPort, FlowKey

_SOURCES = 20_000
_MOST = 300
_BUFFER = 4 * 1024 * 1024


def _known_alone(said: bytes) -> bytes:
    return said if said.startswith(KNOWN) else b""


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _measured() -> tuple[int, int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        room = probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        probe.sendto(b"forged", probe.getsockname())
        probe.recv(1, socket.MSG_PEEK)  # it has come
        each, _ = ancillary.queue_of(probe)
    return room, each


def _burst() -> int:
    room, each = _measured()
    return int(room * 3 // 4 // each)


class _Listener:
    seconds = staticmethod(time.monotonic)
    paths = types.MappingProxyType[Any, Any]({})

    def __init__(self) -> None:
        self.begun = self.dropped = self.shed_count = 0

    def attach(self) -> None: ...

    def detach(self) -> None: ...

    def pass_to_migrated(self, _port: Any, _key: FlowKey, _data: memoryview, _size: int) -> bool:
        return False

    def begin_flow(self, _port: Any, _key: FlowKey, _data: memoryview, _size: int) -> None:
        self.begun += 1

    def count_lost(self, count: int) -> None:
        self.dropped += count

    def count_dropped(self, count: int) -> None:
        self.shed_count += count

    count_cut = count_lost


class QueueTests(TestCase):
    def setUp(self) -> None:
        bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        bound.bind(("127.0.0.1", 0))
        self.listener = _Listener()
        self.port = DatagramPort(Poller.for_reactor(reactor), bound, self.listener)
        self.port.startListening()
        self.addCleanup(self.port.stopListening)
        self.flood = self.enterContext(closing(Flood(bound.getsockname()[1], b"forged")))
        self.count = _burst()
        _, self.each = _measured()

    def has_come(self) -> bool:
        port: Any = self.port
        return ancillary.queue_of(port.socket)[0] >= self.count * self.each

    def read(self) -> None:
        self.flood.send(self.count)
        eventually(self.has_come, "all datagrams wait in the queue")
        for _ in range(self.count // 64 + 10):
            self.port.doRead()

    def test_few_newcomers_begin_while_the_queue_is_long(self) -> None:
        self.read()
        self.assertGreater(self.listener.shed_count, 0)
        self.assertEqual(self.listener.begun + self.listener.shed_count, self.count)
        self.assertEqual(self.listener.dropped, self.listener.begun)

    def test_read_by_another_process(self) -> None:
        """A process that gives the port up, and does not read its datagrams, leaves them to the one that does."""
        configuration = types.SimpleNamespace(settings=Listener("u"))
        listener: Any = types.SimpleNamespace(configuration=configuration)
        ports = ListeningPorts(accepting=True, datagrams=False)
        ports.enter("udp:x", UDPListeningPort(self.port, listener))
        self.flood.send(self.count)
        eventually(self.has_come, "all datagrams wait in the queue")
        ports.give_up(["udp:x"])
        self.assertEqual(self.listener.begun, 0)

    def test_drops_nothing_while_flows_may_come_from_another_process(self) -> None:
        self.port.await_flows()
        self.read()
        self.assertEqual((self.listener.shed_count, self.listener.dropped), (0, 0))
        self.port.await_no_more()
        self.assertEqual(self.listener.begun, self.count)


@skipUnless(Path("/proc/self/fd").exists(), "descriptors cannot be counted here")
class FloodTests(FlowCase):
    async def test_flow_survives_bursts_of_forged_addresses(self) -> None:
        server = Talker.listening(self, answer=_known_alone)
        server.transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)  # type: ignore[union-attr]
        client = Talker.listening(self)
        port = self.begin(server.port, listen=f"max_flows = {_MOST}")
        await client.asks(KNOWN, port)
        known = server.senders[0]
        descriptors = _open_descriptors()
        flood = self.enterContext(closing(Flood(port, b"forged")))
        count = _burst()
        for number in range(-(-_SOURCES // count)):
            # Nobody reads meanwhile, so the client's datagram is behind all of them.
            flood.send(count)
            said = KNOWN + b"%d" % number
            self.assertEqual(await client.asks(said, port), said)
            self.assertLessEqual(_open_descriptors() - descriptors, _MOST + 10)
        both = zip(server.senders, server.heard, strict=True)
        heard = [sender for sender, said in both if said.startswith(KNOWN)]
        self.assertEqual(set(heard), {known})
        self.assertEqual(flood.answers(), 0)
        # Where a burst is longer than a port lets wait, most of it begins no flow.
        self.assertLess(len(server.heard) - len(heard), _SOURCES)

    async def test_overflow_of_a_port_is_counted_as_lost(self) -> None:
        _, client, port = self.served(_known_alone)
        await client.asks(KNOWN, port)
        count = 4 * _burst()
        for _ in range(count):
            client.say(b"x" * 1000, port)
        self.assertEqual(await self.came(count + 1), count + 1)

    async def test_overflow_of_a_flow_is_counted_at_its_end(self) -> None:
        server, client, port = self.served(lambda _: b"", backend="idle_timeout = 2s")
        client.say(KNOWN, port)
        await server.hears(1)
        flow = server.senders[0][1]
        count = 40
        for number in range(count):
            server.say(b"%d" % number, flow)
        await client.hears(count)
        for _ in range(2000):
            server.say(b"x" * 1000, flow)
        [line] = await self.ended()
        lost = self.datagrams("lost")
        self.assertEqual(line["datagrams_out"], count + 2000 - lost)
        self.assertGreater(lost, 0)

    async def came(self, count: int) -> int:
        while True:
            found = self.datagrams("in") + self.datagrams("lost")
            if found >= count:
                return found
            await turn()

    async def test_newcomer_behind_a_short_burst_is_served_at_once(self) -> None:
        server, client, port = self.served(_known_alone)
        flood = self.enterContext(closing(Flood(port, b"forged")))
        flood.send(200)
        self.assertEqual(await client.asks(KNOWN, port), KNOWN)
        self.assertEqual(len(server.heard), 201)

    async def test_forged_addresses_get_their_servers_answers_alone(self) -> None:
        server = Talker.listening(self, answer=lambda said: said)
        flood = self.enterContext(closing(Flood(self.begin(server.port), b"forged")))
        flood.send(100)
        await server.hears(100)
        heard = 0
        while heard < 100 * len(b"forged"):
            await turn()
            heard += flood.answers()
        self.assertEqual((heard, len(server.heard)), (600, 100))
