"""Clients that wait are served one of each source in turn."""

import socket
import struct
from types import SimpleNamespace
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import MuxTestCase, change_constants
from tests.support.queues import until_queued
from txmux.net.sockets import port
from txmux.net.sockets.descriptors import DESCRIPTORS, count_open
from txmux.net.sockets.port import ClientsInTurns
from txmux.serving.endpoints import accept_waiting
from txmux.telemetry.access_log import MergingLog
from txmux.telemetry.counting.counter_groups import LISTENER, RouteTotals


class ClientsInTurnsTest(SynchronousTestCase):
    def test_order(self) -> None:
        """An address of IPv4 is a source, also if it is mapped, or a network of IPv6; clients of a source keep their order."""
        waiting = ClientsInTurns()
        hosts = 3 * ["192.0.2.1"] + ["2001:db8::1", "2001:db8::2%eth0", "2001:db8:0:1::1"]
        hosts += ["::ffff:192.0.2.7", "::ffff:192.0.2.8", "192.0.2.2"]
        for number, host in enumerate(hosts):
            client: Any = (number, (host, 50_000))
            waiting.add(client)
        taken = [waiting.take()[0] for _ in range(waiting.count)]
        self.assertEqual(taken, [0, 3, 5, 6, 7, 8, 1, 4, 2])
        self.assertFalse(waiting.count)


_RESET = struct.pack("ii", 1, 0)
_SAID = b"SSH-2.0-x\r\n"
_SERVED = 3


class GoneClientsTest(MuxTestCase):
    def setUp(self) -> None:
        super().setUp()
        change_constants(self, port, _SERVED=_SERVED)

    def fill(self, number: int, order: str) -> list[socket.socket]:
        living = []
        self.listening.max_batch_time = 3600.0  # however slow the machine is
        self.listening.stopReading()
        for letter in order:
            client = socket.create_connection(("127.0.0.1", number))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.sendall(_SAID)
            if letter == "g":
                client.close()
            else:
                living.append(client)
                self.addCleanup(client.close)
        until_queued(self.listening, len(order))
        self.listening.startReading()
        return living

    async def test_storm(self) -> None:
        """The living are served, and the first of the gone, whose servers get what they said; of the others there is a line."""
        number = self.ssh_mux()
        living = self.fill(number, 30 * "g" + "l" + 20 * "g" + "l")
        await self.until_logged(50)
        while len(self.factory.connections) < len(living):
            await self.turn()
        gone = [record for record in self.records if not record.bytes_in]
        served = [record for record in self.records if record.bytes_in]
        self.assertEqual({record.reason for record in gone}, {"client-gone"})
        self.assertEqual([record.reason for record in served], (1 + _SERVED) * ["client-reset"])
        while len(self.backend.peers) < len(served) + len(living):
            await self.turn()
        for peer in self.backend.peers:
            await peer.has(len(_SAID))
        self.assertEqual(len(self.backend.peers), len(served) + len(living))
        cells = self.factory.configuration.counts.cells
        self.assertEqual(cells[LISTENER.names.index("accepted")], 52)
        ended = RouteTotals.ended.read(self.factory.configuration.counts.unrouted.cells)
        self.assertEqual(ended["client-gone"], len(gone))

    async def test_few(self) -> None:
        """What a client has said before its reset arrives, as long as there are few of those."""
        self.fill(self.ssh_mux(), "gg")
        await self.until_logged(2)
        self.assertEqual([record.reason for record in self.records], 2 * ["client-reset"])
        self.assertEqual([bytes(peer.received) for peer in self.backend.peers], 2 * [_SAID])

    async def test_one_line(self) -> None:
        """Those that are not served share a line a second."""
        number = self.ssh_mux()
        lines: list[int] = []
        log = SimpleNamespace(write=lambda _, count=1: lines.append(count))
        self.factory.log_to(MergingLog(log, self.time.clock))  # type: ignore[arg-type]
        change_constants(self, port, _SERVED=0)
        self.fill(number, 40 * "g")
        while self.factory.configuration.counts.cells[LISTENER.names.index("accepted")] < 40:
            await self.turn()
        self.time.clock.advance(1.0)
        self.assertEqual((lines, self.backend.peers), ([1, 39], []))
        self.factory.log_to(None)
        self.time.clock.advance(1.0)


class TurnsTest(MuxTestCase):
    def fill(self) -> None:
        change_constants(self, port, _BACKLOG=0, _TURN=3600.0)
        number = self.ssh_mux()
        self.listening.stopReading()
        for source in (*20 * ["127.0.0.1"], "127.0.0.2"):
            client = socket.create_connection(("127.0.0.1", number), source_address=(source, 0))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.sendall(_SAID)
            self.addCleanup(client.close)
        until_queued(self.listening, 21)

    def served(self) -> list[str]:
        records = [each.record for each in self.factory.connections]
        records.sort(key=lambda record: int(record.id.partition("-")[2], 16))
        return [record.client.partition(":")[0] for record in records]

    async def test_sources_take_turns(self) -> None:
        """A client does not wait for all that another source has sent before."""
        self.fill()
        self.listening.doRead()
        self.time.advance(0)
        self.assertEqual(len(self.served()), 21)
        self.assertEqual(self.served()[:3], ["127.0.0.1", "127.0.0.2", "127.0.0.1"])

    async def test_closing(self) -> None:
        """Those that have been accepted are served, also if the port closes; all are, whatever was left of the last count of descriptors."""
        self.fill()
        DESCRIPTORS.room()
        granted = self.patch(DESCRIPTORS, "_granted", 5)
        self.listening.doRead()
        self.assertEqual(self.served(), [])
        self.listening.stopListening()
        self.assertEqual(len(self.served()), 21)
        granted.restore()
        # So they are before a reload closes it, also if there are few to let them wait with.
        self.fill()
        few = count_open() + DESCRIPTORS.reserved + 2 * 21 + 30
        self.patch(DESCRIPTORS, "_limit", lambda: few)
        accept_waiting(self.listening)
        self.listening.stopListening()
        self.assertEqual(len(self.served()), 21)

    async def test_shortage(self) -> None:
        """They are served later if something is lacking; the end of that is logged once."""
        self.fill()
        with capturedLogs() as events:
            self.listening.doRead()
            self.listening.pause_accepting(None)
            self.time.advance(0)
            self.assertEqual(self.served(), [])
            self.time.advance(1.0)
            self.time.advance(1.0)
            self.assertEqual(len(self.served()), 21)
            self.time.advance(60.0)
        said = [one["log_format"] for one in events]
        self.assertEqual(said, ["no client is waiting to be accepted any longer"])
