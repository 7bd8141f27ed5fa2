from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.client.socket_options import socket_options
from txmux.rules.model import Keepalive, Listener
from txmux.serving import listening_ports
from txmux.serving.endpoints import ForwardingFactory
from txmux.serving.listening_ports import ListeningPort, ListeningPorts
from txmux.serving.udp_listening_port import UDPListeningPort


class _Port:
    """What Twisted or `DatagramPort` would be, which notes what is done to it; its socket is closed already."""

    lets_in = True
    place = ""

    def __init__(self, number: int) -> None:
        self.done: list[str] = []
        self.flows, self.number = 0, number

    def fileno(self) -> int:
        return -self.number

    def listen_again(self, _: object) -> bool:
        return self.flows > 0

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: self.done.append(name)


def _listener(name: str) -> Any:
    return SimpleNamespace(configuration=SimpleNamespace(settings=Listener(name)))


class PortsTest(SynchronousTestCase):
    def enter(self, *, accepting: bool = True, datagrams: bool = True) -> None:
        self.ports = ListeningPorts(accepting=accepting, datagrams=datagrams)
        self.tcp, self.udp = _Port(1), _Port(2)
        options = socket_options(Listener("t"))
        self.of_t: Any = ListeningPort(self.tcp, _listener("t"), options)
        self.of_u: Any = UDPListeningPort(self.udp, _listener("u"))
        self.ports.enter("tcp:t", self.of_t)
        self.ports.enter("udp:u", self.of_u)

    def test_who_reads_and_admits(self) -> None:
        """A port of datagrams reads those of its flows where no client is admitted, too, but only in one process."""
        self.enter(accepting=False, datagrams=False)
        its = self.ports
        for step, reads_t, reads_u, admits_u, owns in (
            (lambda: None, False, False, False, False), (its.accept, True, False, True, False),
            (its.take_datagrams, True, True, True, True),
            (its.flows_handed_over, True, True, True, False),
            (its.take_datagrams, True, True, True, True),
            (lambda: its.shut(["u"]), True, True, False, True),
            (lambda: its.shut(["t"]), False, True, True, True),
            (lambda: its.shut([]), True, True, True, True), (its.pause, False, False, False, True),
            (its.keep_flows, False, False, False, True), (its.pause, False, True, False, True),
            (its.leave_datagrams, False, False, False, False),
            (its.accept, True, False, True, False),
        ):  # fmt: skip
            step()
            found = self.of_t.is_open, self.of_u.is_open, self.udp.lets_in, its.owns_flows
            self.assertEqual(found, (reads_t, reads_u, admits_u, owns))
            admitted = {name for name, is_open in (("t", reads_t), ("u", admits_u)) if is_open}
            self.assertEqual(its.accepted(), admitted)
            reader = its.reader_at("udp:u")
            self.assertEqual(reader is self.of_u, its.reads_datagrams)
            self.assertEqual((its.reader_at("tcp:t"), its.reader_at("udp:x")), (None, None))
        stop, start = "stopReading", "startReading"
        self.assertEqual(self.tcp.done, [stop, start, stop, start, stop, start])
        self.assertEqual(self.udp.done, [stop, start, stop, start, stop])
        its.take_datagrams()
        its.flows_handed_over()
        its.enter("tcp:t", self.of_t)
        self.assertTrue(its.owns_flows)

    def test_flows_that_come_from_another_process(self) -> None:
        self.enter()
        self.assertTrue(self.ports.arrived().called)
        self.ports.await_flows()
        self.ports.await_flows()
        late = _Port(3)
        self.ports.enter("udp:late", UDPListeningPort(late, _listener("late")))
        self.assertEqual((self.udp.done, late.done), (["await_flows"] * 2, ["await_flows"]))
        self.assertEqual((self.udp.place, late.place, self.tcp.place), ("udp:u", "udp:late", ""))
        arrived = self.ports.arrived()
        self.assertIs(self.ports.arrived(), arrived)
        self.ports.flows_are_here(1)  # of an earlier time
        self.assertNoResult(arrived)
        self.ports.flows_are_here(2)
        self.successResultOf(arrived)
        self.ports.flows_are_here()
        self.assertEqual(late.done[1:], ["await_no_more"] * 2)
        self.ports.await_flows()
        self.assertNoResult(self.ports.arrived())
        for port in self.ports.take_all().values():
            self.ports.close("x", port)
        self.assertTrue(self.ports.arrived().called)  # no port is for them

    def test_closed_and_opened_again(self) -> None:
        """A port whose flows go on comes back with them; one without is made anew."""
        self.enter()
        self.udp.flows = 1
        self.ports.give_up(["tcp:t", "udp:u", "udp:none"])
        self.assertEqual((self.ports.keys(), self.ports.ports), (frozenset(), []))
        self.assertEqual((self.tcp.done, self.udp.done), (["stopListening"], ["stopListening"]))
        self.assertEqual(self.ports.left(), {"udp:u": self.of_u})
        other = _listener("other")
        self.assertIsNone(self.ports.returned("tcp:t", other))
        self.of_u.is_open = False
        self.assertIs(self.ports.returned("udp:u", other), self.of_u)
        self.assertEqual((self.of_u.listener, self.of_u.is_open), (other, True))
        self.assertIsNone(self.ports.returned("udp:u", other))
        self.ports.close("udp:u", self.of_u, is_left=True)
        self.assertEqual(self.udp.done[1:], ["stopReading", "stopListening"])
        self.udp.flows = 0
        self.assertIsNone(self.ports.returned("udp:u", other))
        self.ports.close("udp:u", self.of_u)
        self.assertEqual(self.ports.left(), {})
        self.enter()
        self.assertEqual(len(self.ports.close_all()), 2)
        self.assertEqual((self.tcp.done, self.udp.done), (["stopListening"], ["stopListening"]))
        self.assertIsNone(self.ports.get("tcp:t"))

    def test_other_listeners(self) -> None:
        """A port of datagrams serves any, one of Twisted's passes clients on; other options, or another listener, need another port."""
        self.enter()
        other = _listener("other")
        plain, changed = Listener("t"), Listener("t", keepalive=Keepalive(7, 8, 9))
        for port, listener, settings, can in (
            (self.of_t, self.of_t.listener, plain, True), (self.of_t, other, plain, False),
            (self.of_t, self.of_t.listener, changed, False), (self.of_u, other, changed, True),
        ):  # fmt: skip
            self.assertEqual(port.can_serve(listener, settings), can)
        forwarding: Any = SimpleNamespace(forward_to=self.tcp.done.append)
        of_twisted = ListeningPort(self.tcp, self.of_t.listener, forwarding=forwarding)
        before = self.of_t.listener
        for port in (self.of_t, self.of_u, of_twisted):
            port.forward_to(other)
        self.assertEqual([self.of_t.listener, of_twisted.listener], [before, other])
        found = (self.of_u.listener, self.udp.done, self.tcp.done)
        self.assertEqual(found, (other, ["lead"], [other]))

    def test_held_up(self) -> None:
        """A listener without descriptors is told only while it would accept; one of datagrams needs none."""
        self.enter()
        found: dict[int, Any] = {}
        self.patch(listening_ports, "cannot_accept", lambda: found)
        self.assertEqual(self.ports.held_up(), {})
        found.update({-1: ("none left", 5.0), -2: ("none left", 5.0)})
        self.assertEqual(self.ports.held_up(), {"t": ("none left", 5.0)})
        self.ports.shut(["t"])
        self.assertEqual(self.ports.held_up(), {})

    def test_listeners_begin_and_end_with_the_port(self) -> None:
        """Clients that come before there is one are closed."""

        class Factory(ForwardingFactory):
            def buildProtocol(self, addr: object) -> Any:
                return self

        one, other = Factory(), Factory()
        forwarding: Any = ForwardingFactory()
        self.assertIsNone(forwarding.buildProtocol(None))
        forwarding.doStart()
        for to, ports in ((one, (1, 0)), (one, (1, 0)), (other, (0, 1))):
            forwarding.forward_to(to)
            self.assertEqual((one.numPorts, other.numPorts), ports)
        self.assertIs(forwarding.buildProtocol(None), other)
        forwarding.doStop()
        self.assertEqual(other.numPorts, 0)
        forwarding.forward_to(one)
        self.assertEqual(one.numPorts, 0)
        forwarding.doStart()
        self.assertEqual(one.numPorts, 1)
