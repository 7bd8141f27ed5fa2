from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.examples import scaled
from tests.wire.proxyprotocol.vectors import V1, V2, V2_WITH_CHECKSUM
from txmux.wire.proxyprotocol.decode import Decoded, Incomplete, decode, parse_ssl
from txmux.wire.proxyprotocol.encode import encode_ssl, encode_v1, encode_v2
from txmux.wire.proxyprotocol.header import (
    Address,
    Command,
    InvalidHeader,
    ProxyHeader,
    SslClient,
    SslInfo,
    Tlv,
    TlvType,
)

# Every cut of a header is tried, which takes its time on a busy machine.
every_cut = settings(deadline=None)

PORTS = st.integers(0, 65535)
IPV4 = st.builds(Address, st.ip_addresses(v=4), PORTS)
IPV6 = st.builds(Address, st.ip_addresses(v=6), PORTS)
MAPPED = IPV4.map(Address.as_ipv6)
ANY = st.none() | IPV4 | IPV6 | MAPPED
TYPES = st.integers(0, 255).filter(lambda kind: kind not in {TlvType.CRC32C, TlvType.UNIQUE_ID})
TLVS = st.lists(
    st.builds(Tlv, TYPES, st.binary(max_size=40))
    | st.builds(Tlv, st.just(TlvType.UNIQUE_ID), st.binary(max_size=128)),
    max_size=4,
).map(tuple)

V1_HEADERS = st.builds(ProxyHeader.between, ANY, ANY)
V2_HEADERS = st.builds(ProxyHeader.between, ANY, ANY, TLVS) | st.builds(
    ProxyHeader, st.just(Command.LOCAL), tlvs=TLVS
)
SSL_INFOS = st.builds(SslInfo, st.integers(0, 255).map(SslClient), st.integers(0, 2**32 - 1), TLVS)
PAYLOADS = st.binary(max_size=20)
WITH_ENCODED = V1_HEADERS.map(lambda header: (header, encode_v1(header))) | st.builds(
    lambda header, checksum: (header, encode_v2(header, checksum=checksum)),
    V2_HEADERS,
    st.booleans(),
)
ENCODED = st.sampled_from([*V1, *V2, V2_WITH_CHECKSUM]) | WITH_ENCODED.map(lambda both: both[1])


@st.composite
def damaged(draw: st.DrawFn, originals: st.SearchStrategy[bytes], bytes_in: bytes = b"") -> bytes:
    data = draw(originals)
    new = (
        st.sampled_from([bytes([byte]) for byte in bytes_in]) if bytes_in else st.binary(max_size=2)
    )
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(new) + data[at + draw(st.integers(0, 2)) :]
    return data


def tails() -> list[bytes]:
    lines = (
        b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n", b"PROXY TCP6 0::0.0.0.0 0::0.0.0.0 0 0\r\n",
        b"PROXY TCP6 :: :: 0 0\r\n", b"PROXY UNKNOWN\r\n",
    )  # fmt: skip
    return sorted({line[at:] for line in lines for at in range(len(line))}, key=len)


TAILS = tails()


class RoundTripTests(SynchronousTestCase):
    @settings(every_cut, max_examples=scaled(200))
    @given(WITH_ENCODED, PAYLOADS)
    def test_headers(self, both: tuple[ProxyHeader, bytes], payload: bytes) -> None:
        """Every header is read as it was written, with its fields and a checksum."""
        header, encoded = both
        for cut in range(len(encoded)):
            answer = decode(encoded[:cut])
            assert isinstance(answer, Incomplete)
            self.assertTrue(1 <= answer.need <= len(encoded) - cut)
        for cut in range(len(payload) + 1):
            self.assertEqual(decode(encoded + payload[:cut]), Decoded(header, len(encoded)))

    @given(SSL_INFOS)
    def test_ssl(self, info: SslInfo) -> None:
        """So is the field about the client's TLS."""
        self.assertEqual(parse_ssl(encode_ssl(info).value), info)


class AnyBytesTests(SynchronousTestCase):
    @settings(every_cut, max_examples=scaled(200))
    @given(st.binary(max_size=200) | damaged(ENCODED))
    def test_any_bytes_at_all_are_refused_or_waited_upon(self, data: bytes) -> None:
        """A damaged header may be another header; the answer never changes once it is given, and no other error is raised."""
        last: Decoded | str | None = None
        for cut in range(len(data) + 1):
            try:
                answer = decode(data[:cut])
            except InvalidHeader as error:
                self.assertIn(last, {None, str(error)})
                last = str(error)
                continue
            if last is None:
                last = answer if isinstance(answer, Decoded) else None
            self.assertTrue(isinstance(answer, Incomplete) if last is None else answer == last)

    @given(st.binary(max_size=40) | SSL_INFOS.map(lambda info: encode_ssl(info).value))
    def test_the_field_about_the_clients_tls_is_read_or_refused(self, value: bytes) -> None:
        try:
            info = parse_ssl(value)
        except InvalidHeader:
            return
        self.assertEqual(encode_ssl(info).value, value)

    @every_cut
    @given(damaged(V1_HEADERS.map(encode_v1), b"0159af.: \r\nPTCUN"))
    def test_refused_at_the_first_wrong_byte(self, line: bytes) -> None:
        """As long as a line is not refused, it can still become valid."""
        # Near its greatest length a line may have no room for what it lacks; other first bytes are version 2's.
        assume(len(line) < 80 and line.startswith(b"P"))
        for cut in range(len(line) + 1):
            try:
                answer = decode(line[:cut])
            except InvalidHeader:
                return
            if isinstance(answer, Decoded):
                return
            self.assertTrue(any(completes(line[:cut], tail) for tail in TAILS), line[:cut])


def completes(line: bytes, tail: bytes) -> bool:
    try:
        return isinstance(decode(line + tail), Decoded)
    except InvalidHeader:
        return False
