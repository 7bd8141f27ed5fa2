"""Put together the packets with which a QUIC client begins, by another implementation than the one that is tested."""

import itertools

from aioquic.buffer import encode_uint_var
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import INITIAL_CIPHER_SUITE, CryptoPair
from aioquic.tls import cipher_suite_hash, hkdf_expand_label, hkdf_extract

from tests.wire.hello_builder import alpn, client_hello, extension, server_name, versions

V1, V2, V29 = 1, 0x6B3343CF, 0xFF00001D
DESTINATION = bytes.fromhex("8394c8f03e515708")
SOURCE = b"client"
_EXTENSIONS = alpn(b"h3"), versions(0x0304), extension(0x39, b"\4\4\x80\0\xff")
HELLO = client_hello(server_name("www.Example.com"), *_EXTENSIONS)
_SALT_29 = bytes.fromhex("afbfec289993d24c9e9786f19c6111e04390a899")
_INITIAL, _ZERO_RTT = {V1: 0, V2: 1}, {V1: 1, V2: 2}


def crypto(offset: int, data: bytes) -> bytes:
    """Make a CRYPTO frame (RFC 9000, section 19.6)."""
    return b"\6" + encode_uint_var(offset) + encode_uint_var(len(data)) + data


def cut(hello: bytes, *cuts: int) -> list[bytes]:
    return [crypto(a, hello[a:b]) for a, b in itertools.pairwise([0, *cuts, len(hello)])]


def long_header(
    first: int, version: int, destination: bytes = DESTINATION, source: bytes = SOURCE
) -> bytes:
    ids = bytes([len(destination), *destination, len(source), *source])
    return bytes([first]) + version.to_bytes(4, "big") + ids


def initial(  # noqa: PLR0913 - each field of a packet
    *frames: bytes,
    number: int = 0,
    version: int = V1,
    destination: bytes = DESTINATION,
    source: bytes = SOURCE,
    token: bytes = b"",
    pad: int = 1200,
    fixed: bool = True,
    reserved: int = 0,
    size: int = 4,
    keys: bytes | None = None,
) -> bytes:
    """Make an Initial packet, with PADDING frames up to `pad` bytes in all, and `size` bytes of its number; its keys follow from another ID if that is given."""
    first = 0x80 | size - 1 | reserved | fixed << 6 | _INITIAL.get(version, 0) << 4
    header = long_header(first, version, destination, source) + encode_uint_var(len(token)) + token
    payload = b"".join(frames)
    payload += bytes(max(0, 4 - len(payload), pad - len(header) - 2 - size - 16 - len(payload)))
    length = size + len(payload) + 16
    header += (0x4000 | length).to_bytes(2, "big")
    header += (number & (1 << 8 * size) - 1).to_bytes(size, "big")
    secrets = _keys(version, destination if keys is None else keys)
    sealed: bytes = secrets.encrypt_packet(header, payload, number)
    return sealed


def _keys(version: int, destination: bytes) -> CryptoPair:
    """Derive those of a client's Initial packets; aioquic itself does not know draft-29."""
    keys = CryptoPair()
    keys.setup_initial(cid=destination, is_client=True, version=version)
    if version == V29:
        algorithm = cipher_suite_hash(INITIAL_CIPHER_SUITE)
        initial = hkdf_extract(algorithm, _SALT_29, destination)
        secret = hkdf_expand_label(algorithm, initial, b"client in", b"", algorithm.digest_size)
        keys.send.setup(cipher_suite=INITIAL_CIPHER_SUITE, secret=secret, version=V1)
    return keys


def long_packet(kind: int, body: bytes = bytes(40), version: int = V1) -> bytes:
    """Make a packet of another type, which cannot be decrypted; the type as it is on the wire."""
    return long_header(0xC0 | kind << 4, version) + bytes(encode_uint_var(len(body))) + body


def zero_rtt(version: int = V1) -> bytes:
    return long_packet(_ZERO_RTT[version], version=version)


def other_version(number: int = 0x1A2A3A4A, size: int = 1200) -> bytes:
    """Make a datagram of a version that nobody knows."""
    header = long_packet(0, b"", version=number)
    return header + bytes(size - len(header))


def connection(
    version: int = V1, name: str = "www.example.com", protocols: int = 1
) -> QuicConnection:
    names = ["h3", *(f"protocol-{n:030}" for n in range(1, protocols))]
    its = QuicConfiguration(is_client=True, alpn_protocols=names, server_name=name)
    its.original_version, its.supported_versions = version, [version]
    client = QuicConnection(configuration=its)
    client.connect(("127.0.0.1", 1), now=0.0)
    return client


def sent(client: QuicConnection, now: float = 0.0) -> tuple[bytes, ...]:
    return tuple(datagram for datagram, _ in client.datagrams_to_send(now=now))
