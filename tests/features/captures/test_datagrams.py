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
    packet,
)
from tests.matchers.test_openvpn import DATAGRAMS as OPENVPN
from txmux.features.captures.reading import Datagram, client_flows, read_packets
from txmux.wire.proxyprotocol.header import Address


def datagram(source: Address, destination: Address, data: bytes, size: int | None = None) -> bytes:
    udp = dpkt.udp.UDP(
        sport=source.port,
        dport=destination.port,
        ulen=8 + (len(data) if size is None else size),
        data=data,
    )
    ends = {"src": source.host.packed, "dst": destination.host.packed}
    if source.host.version == 6:
        return bytes(FRAMES[1](dpkt.ip6.IP6(nxt=17, plen=len(udp), hlim=9, data=udp, **ends)))
    made = dpkt.ip.IP(p=17, data=udp, **ends)
    made.len = len(made)
    return bytes(FRAMES[1](made))


class FlowTests(SynchronousTestCase):
    def test_datagrams_of_both_families_and_cut_ones(self) -> None:
        data = capture(
            datagram(CLIENT, SERVER, b"one"),
            datagram(CLIENT6, SERVER6, b""),
            datagram(SERVER, CLIENT, b"thr", 5),
            datagram(CLIENT, SERVER, b"padding", 3),
        )
        self.assertEqual(
            list(read_packets(io.BytesIO(data), "x")),
            [
                Datagram(CLIENT, SERVER, b"one"), Datagram(CLIENT6, SERVER6, b""),
                Datagram(SERVER, CLIENT, b"thr", whole=False), Datagram(CLIENT, SERVER, b"pad"),
            ],
        )  # fmt: skip

    def test_first_four_datagrams_of_each_pair_of_ends(self) -> None:
        other = Address(CLIENT.host, 9)
        flows = client_flows(
            [
                Datagram(CLIENT, SERVER, b"1"),
                Datagram(other, SERVER, b"x", whole=False),
                Datagram(SERVER, CLIENT, b"answer", whole=False),
                *(Datagram(CLIENT, SERVER, b"%d" % number) for number in range(2, 9)),
            ]
        )
        self.assertEqual(
            [(one.client, one.datagrams, one.gap) for one in flows],
            [(CLIENT, (b"1", b"2", b"3", b"4"), False), (other, (b"x",), True)],
        )


class CapturedTests(CommandTestCase):
    text = RULES

    def test_captured_clients_for_listeners_of_their_kind(self) -> None:
        path = self.write(
            "x.pcap",
            capture(
                datagram(CLIENT, SERVER, OPENVPN[0]),
                datagram(SERVER, CLIENT, b"answer"),
                bytes(FRAMES[1](packet(CLIENT, SERVER, SYN, 100, b"SSH-"))),
                datagram(CLIENT6, SERVER6, b"abc", 9),
            ),
        )
        out = self.explain("--pcap", path)
        blocks = out.split("\nlistener ")
        self.assertEqual(len(blocks), 3)
        self.assertIn("listener stream: 4 bytes from 192.0.2.1:40000 to", blocks[0])
        self.assertIn("flow: a datagram of 14 bytes from 192.0.2.1:40000 to", blocks[1])
        self.assertIn("note      the capture lacks the end of a datagram", blocks[2])
        nothing = self.explain("--pcap", self.write("y.pcap", capture()))
        self.assertEqual(
            nothing, f"{self.folder}/y.pcap: no TCP connection and no UDP flow in it\n"
        )
        nothing = self.explain("--listener", "flow", "--pcap", self.write("y.pcap", capture()))
        self.assertEqual(nothing, f"{self.folder}/y.pcap: no UDP flow in it\n")

    def test_no_such_file(self) -> None:
        code, out, err = self.run_main("explain", self.rules, "--pcap", "no/such")
        message = "txmux: no/such cannot be read: No such file or directory\n"
        self.assertEqual((code, out, err), (1, "", message))
