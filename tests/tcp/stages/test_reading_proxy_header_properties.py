"""Whatever a header says, and however it is cut, the backend is told the same, and gets the client's bytes."""

import contextlib
import itertools
import socket
import time
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.interop.children import PATIENCE
from tests.net.relay.reactors import PrivateReactor
from tests.support.examples import scaled
from tests.support.mux import ListLog, backend_at
from tests.wire.proxyprotocol.test_codec_properties import PAYLOADS, V1_HEADERS, V2_HEADERS
from txmux.rules.embedding import route
from txmux.rules.model import Listener, NetworkSet
from txmux.tcp.listener import MuxFactory
from txmux.transport import unmapped
from txmux.wire.proxyprotocol.decode import Decoded, decode, parse_ssl
from txmux.wire.proxyprotocol.encode import encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import Address, Command, InvalidHeader, ProxyHeader, TlvType

CUTS = st.lists(st.floats(0, 1), max_size=4)


def address_of(name: tuple[str, int]) -> Address:
    return Address(ip_address(name[0]), name[1])


class AnyHeaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.private = PrivateReactor("select")
        self.addCleanup(self.private.close)
        self.backend = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.backend.close)
        self.backend.setblocking(False)  # noqa: FBT003
        leads_to = backend_at(self.backend.getsockname()[1], proxy_protocol="v2")
        self.log = ListLog()
        networks = NetworkSet([ip_network("127.0.0.1")])
        factory = MuxFactory(
            [route("any", leads_to)],
            Listener("public", accept_proxy_from=networks),
            access_log=self.log,
            reactor=self.private.reactor,
        )
        with socket.create_server(("127.0.0.1", 0)) as opened:
            self.address = opened.getsockname()
            port = factory.listen(opened)
        self.addCleanup(port.stopListening)

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline)
            self.private.turn()

    def check(self, header: ProxyHeader, encoded: bytes, payload: bytes, cuts: list[float]) -> None:
        records = self.log.records
        before = len(records)
        with socket.create_connection(self.address) as client:
            own = ProxyHeader.between(address_of(client.getsockname()), address_of(self.address))
            data = encoded + payload
            at = sorted({0, len(data), *(round(cut * len(data)) for cut in cuts)})
            # A header that cannot be read may be refused before all of it has been sent.
            with contextlib.nullcontext() if valid(header) else contextlib.suppress(OSError):
                for start, end in itertools.pairwise(at):
                    client.send(data[start:end])
                    for _ in range(3):
                        self.private.turn()
                client.shutdown(socket.SHUT_WR)
            if not valid(header):
                self.until(lambda: len(records) > before)
                self.assertEqual(records[-1].reason, "proxy-header")
                return
            received = self.served()
        answer = decode(received)
        assert isinstance(answer, Decoded)
        self.assertEqual(received[answer.length :], payload)
        self.assertEqual(answer.header, expected(header, own))
        self.until(lambda: len(records) > before)
        record = records[-1]
        ends = (expected(header, own).source, expected(header, own).destination)
        shown = [str(attrs.evolve(end, host=unmapped(end.host))) for end in ends if end]
        self.assertEqual([record.client, record.local], shown)
        self.assertEqual((record.bytes_in, record.reason), (len(payload), "done"))
        self.assertEqual(record.facts["proxy_peer"], str(own.source))

    def served(self) -> bytes:
        accepted: list[socket.socket] = []
        received = bytearray()

        def is_accepted() -> bool:
            try:
                accepted.append(self.backend.accept()[0])
            except BlockingIOError:
                return False
            return True

        def is_over() -> bool:
            try:
                data = accepted[0].recv(65536)
            except BlockingIOError:
                return False
            received.extend(data)
            return not data

        self.until(is_accepted)
        accepted[0].setblocking(False)  # noqa: FBT003
        with accepted[0]:
            self.until(is_over)
        return bytes(received)

    @settings(deadline=None, max_examples=scaled(60))
    @given(V1_HEADERS, PAYLOADS.filter(bool), CUTS)
    def test_every_v1_header(self, header: ProxyHeader, payload: bytes, cuts: list[float]) -> None:
        self.check(header, encode_v1(header), payload, cuts)

    @settings(deadline=None, max_examples=scaled(120))
    @given(V2_HEADERS, st.booleans(), PAYLOADS.filter(bool), CUTS)
    def test_every_v2_header(
        self,
        header: ProxyHeader,
        checksum: bool,  # noqa: FBT001
        payload: bytes,
        cuts: list[float],
    ) -> None:
        self.check(header, encode_v2(header, checksum=checksum), payload, cuts)


def valid(header: ProxyHeader) -> bool:
    """Tell whether the SSL field of a header, which counts for a client's connection alone, can be read."""
    ssl = header.value_of(TlvType.SSL)
    if ssl is None or header.command is Command.LOCAL:
        return True
    try:
        parse_ssl(ssl)
    except InvalidHeader:
        return False
    return True


def expected(header: ProxyHeader, own: ProxyHeader) -> ProxyHeader:
    """Give the header that must come out."""
    if header.command is Command.LOCAL:
        return own
    tlvs = tuple(tlv for tlv in header.tlvs if tlv.type != TlvType.NOOP)
    if header.source is None or header.destination is None:
        return attrs.evolve(own, tlvs=tlvs)
    source, destination = (
        attrs.evolve(end, host=unmapped(end.host)) for end in (header.source, header.destination)
    )
    return ProxyHeader.between(source, destination, tlvs)
