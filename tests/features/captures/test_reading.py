import io
import itertools
import re
import struct
from ipaddress import ip_address
from typing import Any

import attrs
import dpkt  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.support import CommandTestCase
from tests.cli.test_explain_datagrams import RULES
from tests.matchers.test_openvpn import DATAGRAMS as OPENVPN
from tests.support.changes import lack_modules
from tests.wire.hello_builder import client_hello, records, server_name
from txmux.errors import MuxError
from txmux.features.captures import reading
from txmux.features.captures.reading import Datagram, Segment, client_streams, read_packets
from txmux.rules.optional import missing
from txmux.wire.proxyprotocol.header import Address

CLIENT = Address(ip_address("192.0.2.1"), 40000)
SERVER = Address(ip_address("198.51.100.1"), 443)
CLIENT6 = Address(ip_address("2001:db8::1"), 40000)
SERVER6 = Address(ip_address("2001:db8::2"), 443)
SYN, ACK = 2, 16


def from_client(sequence: int, payload: bytes = b"", *, syn: bool = False) -> Segment:
    return Segment(CLIENT, SERVER, sequence, 0, syn, not syn, payload)


def from_server(
    sequence: int, payload: bytes = b"", *, syn: bool = False, acknowledged: int = 0
) -> Segment:
    return Segment(SERVER, CLIENT, sequence, acknowledged, syn, True, payload)  # noqa: FBT003


def first(*segments: Segment, limit: int = 100) -> reading.CapturedStream:
    (stream,) = client_streams(segments, limit)
    return stream


class ReassemblyTests(SynchronousTestCase):
    def test_what_the_client_has_said_up_to_a_gap(self) -> None:
        """Nothing after a gap counts, nor a byte of a keepalive; by TCP Fast Open (RFC 7413), the first bytes come with SYN."""
        whole = (
            from_client(100, syn=True), from_server(900, syn=True, acknowledged=101),
            from_client(101), from_client(101, b"abc"), from_server(901, b"xyz"),
            from_client(104, b"def"),
        )  # fmt: skip
        found = reading.CapturedStream(CLIENT, SERVER, b"abcdef", False, False)  # noqa: FBT003
        self.assertEqual(first(*whole), found)
        syn, said = from_client(100, syn=True), from_client(101, b"ab")
        for segments, data, gap in (
            ((syn, said, from_client(105, b"ef")), b"ab", True),
            ((syn, from_client(100, b"\0"), said), b"ab", False), ((syn,), b"", False),
            ((from_client(100, b"ab", syn=True), from_client(103, b"cd")), b"abcd", False),
        ):  # fmt: skip
            stream = first(*segments)
            self.assertEqual((stream.data, stream.gap), (data, gap))
        # Who has sent SYN, or got the answer to it; else who speaks first.
        syn, answer = from_client(100, syn=True), from_server(901, b"hello")
        accepted = from_server(900, syn=True, acknowledged=101)
        ab, cd = from_client(101, b"ab"), from_client(103, b"cd")
        for heard, expected in (
            ((from_server(900), ab, from_server(900, b"xy")), (b"ab", True, False)),
            ((accepted, answer, cd, ab), (b"abcd", False, True)),
            ((syn, answer, ab), (b"ab", False, True)),
            ((syn, ab, answer, cd), (b"abcd", False, False)),
        ):
            found = first(*heard)
            self.assertEqual((found.data, found.is_late, found.server_first), expected)
            self.assertEqual(found.client, CLIENT)
        for several in (
            (syn, syn, from_client(101, b"one"), from_client(700, syn=True), from_client(701, b"two")),
            (from_client(101, b"one"), syn, from_client(101, b"two")),
        ):  # fmt: skip
            self.assertEqual([s.data for s in client_streams(several, 100)], [b"one", b"two"])

    @given(
        start=st.one_of(st.integers(0, 2**32 - 1), st.integers(2**32 - 60, 2**32 - 1)),
        cuts=st.sets(st.integers(1, 49)),
        extra=st.lists(st.tuples(st.integers(0, 49), st.integers(1, 20)), max_size=5),
        limit=st.integers(1, 60),
        syn=st.booleans(),
        data=st.data(),
    )
    def test_any_order_repeated_overlapping_and_wrapping_numbers(
        self, start: int, cuts: set[int], extra: Any, limit: int, syn: bool, data: st.DataObject  # noqa: FBT001
    ) -> None:  # fmt: skip
        said = bytes(range(50))
        pieces = [*itertools.pairwise([0, *sorted(cuts), 50]), *((a, a + n) for a, n in extra)]
        shuffled = data.draw(st.permutations(pieces))
        segments = [from_client(start, syn=True)] if syn else []
        for a, b in shuffled:
            if said[a:b]:
                segments.append(from_client((start + 1 + a) % 2**32, said[a:b]))
        stream = first(*segments, limit=limit)
        self.assertEqual((stream.data, stream.gap), (said[:limit], False))

    def test_first_four_datagrams_of_each_pair_of_ends(self) -> None:
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
        flows = reading.client_flows(
            [first, odd, Datagram(SERVER, CLIENT, b"answer", whole=False), *more]
        )
        its = CLIENT, (b"1", b"2", b"3", b"4"), False
        found = [(one.client, one.datagrams, one.gap) for one in flows]
        self.assertEqual(found, [its, (other, (b"x",), True)])


def packet(source: Address, destination: Address, flags: int, sequence: int, data: bytes) -> Any:
    ports = {"sport": source.port, "dport": destination.port}
    segment = dpkt.tcp.TCP(**ports, seq=sequence, flags=flags, data=data)
    return in_ip(6, segment, source, destination)


def in_ip(protocol: int, data: Any, source: Address, destination: Address) -> Any:
    ends = {"src": source.host.packed, "dst": destination.host.packed}
    if source.host.version == 6:
        return dpkt.ip6.IP6(nxt=protocol, plen=len(data), hlim=9, data=data, **ends)
    made = dpkt.ip.IP(p=protocol, data=data, **ends)
    made.len = len(made)
    return made


def _type(ip: Any) -> int:
    return 0x86DD if ip.v == 6 else 0x800


FRAMES = {
    1: lambda ip: bytes(dpkt.ethernet.Ethernet(type=_type(ip), data=ip)),
    0: lambda ip: struct.pack("=I", 30 if ip.v == 6 else 2) + bytes(ip),
    101: bytes,
    113: lambda ip: struct.pack("!HHH8sH", 0, 1, 6, b"", _type(ip)) + bytes(ip),
    276: lambda ip: struct.pack("!HHIHBB8s", _type(ip), 0, 1, 1, 0, 6, b"") + bytes(ip),
}
"""How a packet stands in a capture, by its link type."""


def capture(*packets: bytes, link: int = 1, writer: Any = dpkt.pcap.Writer) -> bytes:
    file = io.BytesIO()
    if writer is dpkt.pcapng.Writer:
        made = writer(file, idb=dpkt.pcapng.InterfaceDescriptionBlockLE(linktype=link))
    else:
        made = writer(file, linktype=link)
    for each in packets:
        made.writepkt(each, 1.0)
    return file.getvalue()


class ReadTests(CommandTestCase):
    def read(self, data: bytes) -> list[Segment]:
        return [one for one in read_packets(io.BytesIO(data), "x.pcap") if isinstance(one, Segment)]

    def test_packets_are_read_skipped_or_refused(self) -> None:
        for (link, frame), writer, (source, destination) in itertools.product(
            FRAMES.items(),
            (dpkt.pcap.Writer, dpkt.pcapng.Writer),
            ((CLIENT, SERVER), (CLIENT6, SERVER6)),
        ):
            ends = source, destination
            syn, said = packet(*ends, SYN, 100, b""), packet(*ends, ACK, 101, b"SSH-")
            found = self.read(capture(frame(syn), frame(said), link=link, writer=writer))
            first = Segment(*ends, 100, 0, True, False, b"")  # noqa: FBT003
            second = Segment(*ends, 101, 0, False, True, b"SSH-")  # noqa: FBT003
            self.assertEqual(found, [first, second], (link, writer))
        good = FRAMES[1](packet(CLIENT, SERVER, ACK, 1, b"x"))
        udp = dpkt.ip.IP(p=17, src=bytes(4), dst=bytes(4), data=dpkt.udp.UDP(data=b"x"))
        data = capture(b"", b"short", good[:30], good[:40], FRAMES[1](udp), good, good)
        self.assertEqual(len(self.read(data)), 2)
        for cut in range(1, len(good) + 16):
            self.assertIn(len(self.read(data[:-cut])), (1, 2))
        ng = capture(good, good, writer=dpkt.pcapng.Writer)
        for cut in range(1, len(good)):
            self.assertIn(len(self.read(ng[:-cut])), (1, 2))
        self.assertRaisesRegex(MuxError, "x.pcap is not a capture; .*tcpdump", self.read, b"")
        self.assertRaisesRegex(MuxError, "is not a capture", self.read, b"SSH-2.0" * 99)
        wifi = capture(link=105)
        self.assertRaisesRegex(MuxError, r"link type 105\); capture on", self.read, wifi)
        lack_modules(self, "dpkt")
        self.assertRaisesRegex(MuxError, r"pip install 'txmux\[pcap\]'", self.read, b"")

    @given(
        junk=st.lists(st.binary(max_size=80), min_size=1, max_size=5),
        head=st.sampled_from((b"", FRAMES[1](packet(CLIENT6, SERVER6, ACK, 1, b"x"))[:14])),
        link=st.sampled_from(sorted(FRAMES)),
        writer=st.sampled_from((dpkt.pcap.Writer, dpkt.pcapng.Writer)),
    )
    def test_garbage(self, junk: list[bytes], head: bytes, link: int, writer: Any) -> None:
        self.read(capture(*(head + each for each in junk), link=link, writer=writer))

    @given(st.binary(max_size=100), st.integers(0, 200))
    def test_damaged_file_is_read_as_far_as_possible(self, junk: bytes, at: int) -> None:
        good = FRAMES[1](packet(CLIENT, SERVER, ACK, 1, b"x"))
        for writer in (dpkt.pcap.Writer, dpkt.pcapng.Writer):
            data = capture(good, good, writer=writer)
            said = ""
            try:
                self.read(data[:at] + junk + data[at + len(junk) :])
            except MuxError as error:
                said = str(error)
            self.assertRegex(said, "^$|is not a capture|kind of network")

    def test_routes_that_say_no_are_counted_in_a_long_capture(self) -> None:
        """100 clients before 26 routes: a block of a few lines for each, and how many each route takes."""
        rules = "[listen a]\nendpoint = :443\n" + "".join(
            f"[route r{n}]\nmatch = payload text=r{n:02}\nbackend = 127.0.0.1:{n + 1}\n"
            for n in range(25)
        )
        rules += "[route local]\nmatch = payload text=r03\nfrom = 10.0.0.0/8\nbackend = close\n"
        said = [b"r01 "] * 60 + [b"r02 "] * 30 + [b"other"] * 9 + [b"r"]
        clients = [attrs.evolve(CLIENT, port=40000 + n) for n in range(100)]
        packets = [packet(c, SERVER, ACK, 1, data) for c, data in zip(clients, said, strict=True)]
        path = self.write("x.pcap", capture(*map(FRAMES[1], packets)))
        file = self.write("rules.ini", rules)
        out = self.told(0, self.run_main("explain", file, "--pcap", path))
        self.assertLess(len(out.splitlines()), 950)
        first, *_, last, summary = re.split(r"\n\n(?=listener a|clients )", out)
        head = "   route  match             says", ">  r1     payload text=r01  match at byte 3"
        more = "and 24 routes said no, 1 route not asked"
        self.assertEqual(first.splitlines()[2:5], [*head, more])
        self.assertIn("  r0     payload text=r00  undecided, needs up to 3\n", last)
        undecided = "undecided; at the deadline: default"
        counts = {"route r1": 60, "route r2": 30, "default": 9, undecided: 1}
        rows = [f"{count:>7}  a         {what}" for what, count in counts.items()]
        self.assertEqual(summary.splitlines(), ["clients  listener  decision", *rows])
        _, out, _ = self.run_main("explain", file, "--pcap", path, "--all")
        self.assertGreater(len(out.splitlines()), 2600)

    def explain_capture(self, data: bytes, *arguments: str) -> str:
        rules = self.write(
            "rules.ini",
            "[listen a]\nendpoint = :443\nsilent = 127.0.0.1:25\n"
            "[route ssh]\nmatch = ssh\nfrom = 192.0.2.0/24\nbackend = 127.0.0.1:22\n",
        )
        path = self.write("x.pcap", data)
        return self.told(0, self.run_main("explain", rules, "--pcap", path, *arguments))

    def test_one_block_for_each_connection(self) -> None:
        """What a client says that was there before is not shown as its first bytes without a word."""
        packets = (
            packet(CLIENT, SERVER, SYN, 100, b""), packet(CLIENT6, SERVER6, SYN, 100, b""),
            packet(CLIENT, SERVER, ACK, 101, b"SSH-"),
            packet(SERVER6, CLIENT6, ACK, 1, b"220 mail\r\n"),
            packet(CLIENT6, SERVER6, ACK, 101, b"EH"), packet(CLIENT6, SERVER6, ACK, 105, b" x"),
        )  # fmt: skip
        data = capture(*map(FRAMES[1], packets))
        expected = """listener a: 4 bytes from 192.0.2.1:40000 to 198.51.100.1:443: SSH-

   route  match  says
>  ssh    ssh    match at byte 4

decision  at byte 4: route ssh, to 127.0.0.1:22

listener a: 2 bytes from [2001:db8::1]:40000 to [2001:db8::2]:443: EH

  route  match  says
  ssh    ssh    not asked: 'from' does not name 2001:db8::1

decision  at byte 1: default, close
note      the capture lacks what the client sent after byte 2
note      the server spoke first; a client that waits for that says nothing here:
          after 3s: route silent, to 127.0.0.1:25

clients  listener  decision
      1  a         route ssh
      1  a         default
"""
        self.assertEqual(self.explain_capture(data), expected)
        other = self.explain_capture(data, "--from", "10.0.0.1")
        self.assertIn("198.51.100.1:443, as if from 10.0.0.1: SSH-\n", other)
        said = self.explain_capture(capture(FRAMES[1](packet(CLIENT, SERVER, ACK, 101, b"SSH-"))))
        note = "to 127.0.0.1:22\nnote      the capture lacks the SYN, so these may not be"
        self.assertIn(note, said)
        none = f"{self.folder}/x.pcap: no TCP connection in it\n"
        self.assertEqual(self.explain_capture(capture()), none)


class StartTLSTests(CommandTestCase):
    skip = missing("starttls") or None

    def test_hello_behind_the_command_decides(self) -> None:
        hello = records(client_hello(server_name("b.example")))
        packets = (
            packet(CLIENT, SERVER, SYN, 0, b""),
            packet(SERVER, CLIENT, ACK, 1, b"220 x\r\n"),
            packet(CLIENT, SERVER, ACK, 1, b"EHLO a\r\nSTARTTLS\r\n"),
            packet(SERVER, CLIENT, ACK, 8, b"220 go\r\n"),
            packet(CLIENT, SERVER, ACK, 19, hello),
        )
        path = self.write("x.pcap", capture(*map(FRAMES[1], packets)))
        route = "[route b]\nmatch = tls sni=b.example\nbackend = 127.0.0.1:1\n"
        listen = "[listen a]\nendpoint = :25\nstarttls = smtp\n"
        file = self.write("rules.ini", f"{listen}{route}")
        _, out, _ = self.run_main("explain", file, "--pcap", path)
        self.assertIn(f"decision  at byte {len(hello)}: route b, to 127.0.0.1:1\n", out)
        self.assertIn("learnt    starttls=smtp sni=b.example", out)
        self.assertNotIn("spoke first", out)


def datagram(source: Address, destination: Address, data: bytes, size: int | None = None) -> bytes:
    length = 8 + (len(data) if size is None else size)
    udp = dpkt.udp.UDP(sport=source.port, dport=destination.port, ulen=length, data=data)
    return bytes(FRAMES[1](in_ip(17, udp, source, destination)))


class CapturedTests(CommandTestCase):
    text = RULES

    def test_captured_clients_for_listeners_of_their_kind(self) -> None:
        captured = capture(
            datagram(CLIENT, SERVER, OPENVPN[0]),
            datagram(SERVER, CLIENT, b"answer"),
            bytes(FRAMES[1](packet(CLIENT, SERVER, SYN, 100, b"SSH-"))),
            datagram(CLIENT6, SERVER6, b"abc", 9),
        )
        blocks = self.explain("--pcap", self.write("x.pcap", captured)).split("\nlistener ")
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
