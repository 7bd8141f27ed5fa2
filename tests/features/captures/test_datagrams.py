import io

import dpkt  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.support import CommandTestCase
from tests.cli.test_explain_datagrams import RULES
from tests.features.captures.test_reading import (
    CLIENT,
    CLIENT6,
    FRAMES,
    SERVER,
    SERVER6,
    SYN,
    capture,
    in_ip,
    packet,
)
from tests.matchers.test_openvpn import DATAGRAMS as OPENVPN
from txmux.features.captures.reading import Datagram, client_flows, read_packets
from txmux.wire.proxyprotocol.header import Address


def datagram(source: Address, destination: Address, data: bytes, size: int | None = None) -> bytes:
    length = 8 + (len(data) if size is None else size)
    udp = dpkt.udp.UDP(sport=source.port, dport=destination.port, ulen=length, data=data)
    return bytes(FRAMES[1](in_ip(17, udp, source, destination)))


class FlowTests(SynchronousTestCase):
    def test_datagrams_of_both_families_and_the_first_four_of_each_pair_of_ends(self) -> None:
        rows = (
            (datagram(CLIENT, SERVER, b"one"), Datagram(CLIENT, SERVER, b"one")),
            (datagram(CLIENT6, SERVER6, b""), Datagram(CLIENT6, SERVER6, b"")),
            (datagram(SERVER, CLIENT, b"thr", 5), Datagram(SERVER, CLIENT, b"thr", whole=False)),
            (datagram(CLIENT, SERVER, b"padding", 3), Datagram(CLIENT, SERVER, b"pad")),
        )
        data = capture(*(packet for packet, _ in rows))
        self.assertEqual([*read_packets(io.BytesIO(data), "x")], [read for _, read in rows])
        other = Address(CLIENT.host, 9)
        first, *more = (Datagram(CLIENT, SERVER, b"%d" % number) for number in range(1, 9))
        odd = Datagram(other, SERVER, b"x", whole=False)
        flows = client_flows([first, odd, Datagram(SERVER, CLIENT, b"answer", whole=False), *more])
        its = CLIENT, (b"1", b"2", b"3", b"4"), False
        found = [(one.client, one.datagrams, one.gap) for one in flows]
        self.assertEqual(found, [its, (other, (b"x",), True)])


class CapturedTests(CommandTestCase):
    text = RULES

    def test_captured_clients_for_listeners_of_their_kind(self) -> None:
        captured = capture(
            datagram(CLIENT, SERVER, OPENVPN[0]),
            datagram(SERVER, CLIENT, b"answer"),
            bytes(FRAMES[1](packet(CLIENT, SERVER, SYN, 100, b"SSH-"))),
            datagram(CLIENT6, SERVER6, b"abc", 9),
        )
        out = self.explain("--pcap", self.write("x.pcap", captured))
        blocks = out.split("\nlistener ")
        self.assertEqual(len(blocks), 3)
        self.assertIn("listener stream: 4 bytes from 192.0.2.1:40000 to", blocks[0])
        self.assertIn("flow: a datagram of 14 bytes from 192.0.2.1:40000 to", blocks[1])
        self.assertIn("note      the capture lacks the end of a datagram", blocks[2])
        nothing = self.write("y.pcap", capture())
        for more, what in (
            ((), "no TCP connection and no UDP flow"), (("--listener", "flow"), "no UDP flow"),
        ):  # fmt: skip
            self.assertEqual(self.explain(*more, "--pcap", nothing), f"{nothing}: {what} in it\n")
        code, out, err = self.run_main("explain", self.rules, "--pcap", "no/such")
        message = "txmux: no/such cannot be read: No such file or directory\n"
        self.assertEqual((code, out, err), (1, "", message))
