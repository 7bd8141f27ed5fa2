"""The first message of a TLS client, read as far as it has come."""

import functools
from struct import Struct

from txmux.classes import define, frozen
from txmux.wire.cursor import Cursor, MalformedError, ShortError, copied
from txmux.wire.hello.ja4 import fingerprint
from txmux.wire.hello.whole import (
    ALPN,
    ENCRYPTED_CLIENT_HELLO,
    SERVER_NAME,
    SIGNATURE_ALGORITHMS,
    SUPPORTED_VERSIONS,
    WholeHello,
    protocols,
    read_whole,
)

_SSLV2_FIXED = 9
_LEAST_SSLV2, _MOST_SSLV2 = _SSLV2_FIXED + 3 + 16, 0x1FF
SSLV2_FIRST_BYTES = frozenset({0x80, 0x81})
"""It begins with its length, whose highest bit is set; up to 511 bytes of it are plausible."""


def read_sslv2_beginning(cursor: Cursor) -> tuple[int, int]:
    """Read the length, the type and the version of the message (RFC 5246, appendix E.2).

    Returns:
        Where the message ends, and the highest version that the client offers.

    Raises:
        MalformedError: They are none, whatever follows.
        ShortError: They are not there in full.
    """
    size = cursor.number(2, 0x8000 | _LEAST_SSLV2, 0x8000 | _MOST_SSLV2) & 0x7FFF
    end = cursor.at + size
    cursor.number(1, 1, 1)
    major = cursor.number(1, 0, 3)
    if major == 0:
        return end, cursor.number(1, 2, 2)
    if major != 3:
        raise MalformedError
    return end, 0x0300 | cursor.number(1, 0, 4)


def read_sslv2_hello(cursor: Cursor) -> int:
    """Read the whole message.

    Returns:
        The highest version that the client offers.

    Raises:
        MalformedError: It is none, whatever follows.
        ShortError: It is not there in full.
    """
    end, version = read_sslv2_beginning(cursor)
    room = end - cursor.at - 6
    cipher_suites = cursor.number(2, 3, room - 16)
    if cipher_suites % 3:
        raise MalformedError
    session_id = cursor.number(2, 0, min(16, room - 16 - cipher_suites))
    challenge = room - cipher_suites - session_id
    if session_id % 16 or challenge > 32:
        raise MalformedError
    cursor.number(2, challenge, challenge)
    cursor.take(room)
    return version


__all__ = [
    "DTLS_VERSIONS", "LONGEST_HELLO", "VERSIONS", "ClientHello", "HelloReader",
    "parse_client_hello", "read_hello", "read_record_header",
]  # fmt: skip

VERSIONS = {
    0x0002: "ssl2", 0x0300: "ssl3", 0x0301: "1.0", 0x0302: "1.1", 0x0303: "1.2", 0x0304: "1.3",
}  # fmt: skip
"""The names of the protocol versions, by their number on the wire."""

DTLS_VERSIONS = {0x0302: "1.0", 0x0303: "1.2", 0x0304: "1.3"}
"""The names of the versions of DTLS, by the version of TLS that each is made from."""

_OVER_DATAGRAMS = {0xFEFF: 0x0302, 0xFEFD: 0x0303, 0xFEFC: 0x0304}  # RFC 9147, section 5.3
_RECORD_HEADER = Struct(">BHH").unpack_from
_RECORD_HEADER_SIZE = 5
_HEADERS_BEGUN = frozenset(
    bytes([0x16, 0x03, version, length])[:come]
    for version in range(5)
    for length in range((1 << 14 >> 8) + 1)
    for come in range(5)
)
"""What may be there of a record's header, without its last byte."""
_HIGHEST_LEGACY_VERSION = 0x0303
_HEADER = 4
_LONGEST_BODY = 0xFFFF
LONGEST_HELLO = (5 + 1) * (_HEADER + _LONGEST_BODY)
"""The most bytes of the stream that a hello can take: in records of one byte each."""
_MOST_ELEMENTS = 128
"""The most extensions, and names in those that are looked into; clients have about thirty."""

_LISTS = {SERVER_NAME: (2, 3), ALPN: (2, 2), SUPPORTED_VERSIONS: (1, 2)}
"""By extension: the size of the length of the list that fills it, and the least such length."""


@frozen
class ClientHello:
    """What a TLS client offers (RFC 8446, section 4.1.2; RFC 5246, section 7.4.1.2).

    Attributes:
        sni: The server name it asks for (RFC 6066, section 3), in lower case and without the dot that may end it;
            one character a byte.
        alpn: The application protocols it offers (RFC 7301), best first; one character a byte.
        version: The highest version it offers, as `VERSIONS` names it.
        ech: Whether it has an encrypted hello with it (RFC 9849), or what looks like one (section 6.2 there).
    """

    sni: str | None
    alpn: tuple[str, ...]
    version: str
    ech: bool = False


@define(slots=False)
class HelloReader:
    """The state of a hello; frozen once `parse_client_hello` has returned it.

    Attributes:
        malformed: Whether this is not a hello, whatever follows.
        hello: The hello, once it is there in full.
        sni: Its server name, as soon as that is there.
        alpn: Its application protocols, as soon as all of them are there.
        version: Its highest version, as soon as that is certain.
        ech: Whether it has an encrypted hello with it, as soon as that is certain.
        carrier: What the fingerprint begins with: ``t`` for TCP, ``q`` for QUIC, ``d`` for DTLS.
    """

    malformed: bool = False
    hello: ClientHello | None = None
    sni: str | None = None
    alpn: tuple[str, ...] | None = None
    version: str | None = None
    ech: bool | None = None
    carrier: str = "t"

    _used: int = 0
    """How many bytes of the stream have been taken out of their records."""
    _left: int = 0
    """How many more the current record has."""
    _message: bytes = b""
    """What was in the records."""
    _needed: int = 1
    """Reading cannot continue with a shorter message."""

    _at: int = 0
    """The offset in the message up to which it is read."""
    _elements: int = 0
    """How many extensions and names were read until there."""
    _end: int = 0
    """Where the message ends; 0 while that is not known."""
    _extension: int = -1
    """The extension whose list is being read, …"""
    _list_at: int = 0
    """… where that begins, …"""
    _list_end: int = 0
    """… and where it ends; the next extension begins there."""
    _seen: frozenset[int] = frozenset()
    _is_named: bool = False
    """Whether a host name has come (RFC 6066, section 3, forbids a second one)."""
    _legacy_version: int = 0
    _versions: bytes = b""
    _cipher_suites: bytes = b""
    _extensions: tuple[int, ...] = ()
    _signature_algorithms: bytes = b""
    _ja4: str | None = None
    _whole: WholeHello | None = None
    """What the fingerprint is made of."""

    @property
    def unread(self) -> str:
        """Why a hello that servers may read is taken for malformed: each element costs calls."""
        is_over = self._elements > _MOST_ELEMENTS
        return f"over {_MOST_ELEMENTS} extensions and names" if is_over else ""

    @property
    def _names(self) -> dict[int, str]:
        return DTLS_VERSIONS if self.carrier == "d" else VERSIONS

    def ja4(self) -> str | None:
        """Return the JA4 fingerprint of a hello that is there in full; one of DTLS, or in the format of SSL 2.0, has none."""
        if self._ja4 is None and self._whole is not None and self.carrier != "d":
            self._ja4 = fingerprint(self._whole, self.carrier)
        return self._ja4

    def read(self, data: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning.

        Raises:
            MalformedError: They begin no hello, whatever follows.
        """
        if not self._end:
            if data and data[0] in SSLV2_FIRST_BYTES:
                self._read_sslv2(data)
                return
            self._unwrap(data, _HEADER)
            if len(self._message) >= self._needed:
                self._go_on()
        if self._end:
            self._unwrap(data, self._end)
            if len(self._message) >= self._needed:
                self._go_on()

    def stays_with(self, data: bytes) -> bool:
        """Return whether there is nothing to read in more bytes of the same stream; a client may send byte by byte."""
        left = self._left
        if data[self._used + left :] not in _HEADERS_BEGUN:
            return False
        missing = self._needed - len(self._message)
        return left < missing or len(data) - self._used < missing

    def read_message(self, data: bytes) -> None:
        """Continue with more bytes of a hello that is in no records (RFC 9001, section 4), all of them from its beginning."""
        try:
            for whole_message in (False, True):
                self._message = data[: self._end if whole_message else _HEADER]
                if len(self._message) >= self._needed:
                    self._go_on()
        except MalformedError:
            self.malformed = True

    def _read_sslv2(self, data: bytes) -> None:
        try:
            version = read_sslv2_hello(Cursor(data))
        except ShortError:
            return
        self.alpn, self.version, self.ech = (), VERSIONS[version], False
        self.hello = ClientHello(None, self.alpn, self.version)

    def _unwrap(self, data: bytes, goal: int) -> None:
        pieces = [self._message]
        missing = goal - len(self._message)
        at, left, end = self._used, self._left, len(data)
        while missing > 0 and at < end:
            if not left:
                if end < at + _RECORD_HEADER_SIZE:
                    if data[at:] not in _HEADERS_BEGUN:
                        self.malformed = True
                    break
                kind, version, left = _RECORD_HEADER(data, at)
                if kind != 0x16 or not 0x0300 <= version <= 0x0304 or not 1 <= left <= 1 << 14:
                    # What came before is still read, so that it is known whether it came by itself or not.
                    self.malformed, left = True, 0
                    break
                at += _RECORD_HEADER_SIZE
            piece = data[at : at + min(left, missing)]
            pieces.append(piece)
            length = len(piece)
            at += length
            left -= length
            missing -= length
        self._used, self._left = at, left
        self._message = b"".join(pieces)

    def _go_on(self) -> None:
        cursor = Cursor(self._message, self._at)
        try:
            if not self._at:
                self._read_beginning(cursor)
                self._at = cursor.at
            while self._at < self._end:
                self._read_element(cursor)
                self._at = cursor.at
                self._elements += 1
                if self._elements > _MOST_ELEMENTS:
                    raise MalformedError
        except ShortError as short:
            self._needed = short.needed
            return
        self.alpn = self.alpn or ()
        self.version = self.version or self._names[self._legacy_version]
        self.ech = self.ech or False
        self.hello = ClientHello(self.sni, self.alpn, self.version, self.ech)
        self._whole = WholeHello(
            self._end,
            self.sni,
            self.alpn,
            int.from_bytes(self._message[_HEADER : _HEADER + 2], "big"),
            self._versions,
            self.ech,
            self._cipher_suites,
            self._extensions,
            self._signature_algorithms,
        )

    def _read_beginning(self, cursor: Cursor) -> None:
        cursor.number(1, 1, 1)
        self._end = cursor.number(3, 2 + 32 + 1 + 4 + 2, _LONGEST_BODY) + _HEADER
        self._legacy_version = min(cursor.number(2, 0x0300, 0x03FF), _HIGHEST_LEGACY_VERSION)
        cursor.take(32)
        cursor.take(cursor.number(1, 0, min(32, self._room(cursor, 1 + 4 + 2))))
        cipher_suites = cursor.number(2, 2, self._room(cursor, 2 + 2))
        if cipher_suites % 2:
            raise MalformedError
        self._cipher_suites = cursor.take(cipher_suites)
        compression_methods = cursor.number(1, 1, self._room(cursor, 1))
        extensions = self._room(cursor, compression_methods + 2)
        if extensions not in {-2, 0} and extensions < 4:
            raise MalformedError
        cursor.take(compression_methods)
        if extensions >= 0:
            cursor.number(2, extensions, extensions)
        self._list_end = cursor.at

    def _room(self, cursor: Cursor, others: int) -> int:
        return self._end - cursor.at - others

    def _read_element(self, cursor: Cursor) -> None:
        """Read an element that must be complete before the next one."""
        if cursor.at == self._list_end:
            self._read_extension(cursor)
        elif self._extension == SERVER_NAME:
            self._read_server_name(cursor)
        elif self._extension == ALPN:
            self._read_protocol(cursor)
        else:
            body = cursor.take(self._list_end - cursor.at)
            self._versions = body
            versions = _known_dtls_versions(body) if self.carrier == "d" else _known_versions(body)
            self.version = self._names[max(versions, default=self._legacy_version)]

    def _read_extension(self, cursor: Cursor) -> None:
        """Read an extension, or its header and the length of its list if that is looked into."""
        extension = cursor.number(2, 0, 0xFFFF)
        if extension in self._seen:
            raise MalformedError
        room = self._room(cursor, 2)
        size = cursor.number(2, 0, room)
        if 0 < room - size < 4:
            raise MalformedError
        if extension in _LISTS:
            width, least = _LISTS[extension]
            length = size - width
            if extension == SERVER_NAME and size in {0, width}:
                width, length = size, 0  # no list, or an empty one
            elif length < least or (extension == SUPPORTED_VERSIONS and length % 2):
                raise MalformedError
            cursor.number(width, length, length)
            self._seen |= {extension}
            self._extension = extension
            self._list_at = cursor.at
            self._list_end = cursor.at + length
        else:
            body = cursor.take(size)
            self._list_end = cursor.at
            if extension == ENCRYPTED_CLIENT_HELLO:
                self.ech = True
            elif extension == SIGNATURE_ALGORITHMS:
                self._signature_algorithms = body
        self._extensions += (extension,)

    def _read_server_name(self, cursor: Cursor) -> None:
        is_host = cursor.number(1, 0, 0xFF) == 0
        if is_host and self._is_named and self.carrier == "t":
            raise MalformedError  # of datagrams, servers that take it have to get it by the first one
        room = self._list_end - cursor.at - 2
        size = cursor.number(2, 0, room)
        if 0 < room - size < 3:
            raise MalformedError
        name = cursor.take(size)
        self._is_named |= is_host
        if is_host and name and self.sni is None:
            self.sni = name.lower().decode("latin-1").removesuffix(".")

    def _read_protocol(self, cursor: Cursor) -> None:
        room = self._list_end - cursor.at - 1
        size = cursor.number(1, 1, room)
        if room - size == 1:
            raise MalformedError
        cursor.take(size)
        if cursor.at == self._list_end:
            self.alpn = protocols(self._message[self._list_at : self._list_end])


def parse_client_hello(data: bytes, earlier: HelloReader | None) -> HelloReader:
    """Read a hello out of the first bytes of a stream; for `Peeked.parsed`.

    The hello may be cut into records of any size (RFC 8446, section 5.1). What follows it is not looked at.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if earlier is None:
        whole = _read_at_once(data)
        if whole is not None:
            return whole
        reader = HelloReader()
    elif earlier.malformed or earlier.hello or earlier.stays_with(data):
        return earlier
    else:
        reader = copied(earlier)
    try:
        reader.read(data)
    except MalformedError:
        reader.malformed = True
    return reader


def read_hello(message: bytes) -> ClientHello | None:
    """Read a whole hello that is in no records; ``None`` if it is malformed."""
    reader = HelloReader()
    reader.read_message(message)
    return None if reader.malformed else reader.hello


# What decides on a client, and what terminates its TLS next, read the same bytes.
@functools.lru_cache(1)
def _read_at_once(data: bytes) -> HelloReader | None:
    whole = read_whole(data, _MOST_ELEMENTS)
    if whole is None:
        return None
    version = VERSIONS[
        _highest_known(whole.versions) or min(whole.legacy_version, _HIGHEST_LEGACY_VERSION)
    ]
    hello = ClientHello(whole.sni, whole.alpn, version, whole.ech)
    return HelloReader(
        hello=hello, sni=whole.sni, alpn=whole.alpn, version=version, ech=whole.ech, whole=whole
    )


@functools.lru_cache(256)
def _highest_known(versions: bytes) -> int:
    return max(_known_versions(versions), default=0)


def read_record_header(cursor: Cursor) -> None:
    """Read the header of a record that carries a handshake (RFC 8446, section 5.1).

    Raises:
        MalformedError: It is none, whatever follows.
        ShortError: It is not there in full.
    """
    cursor.number(1, 0x16, 0x16)
    cursor.number(2, 0x0300, 0x0304)
    cursor.number(2, 1, 1 << 14)


def _known_versions(body: bytes) -> list[int]:
    versions = [int.from_bytes(body[i : i + 2], "big") for i in range(0, len(body), 2)]
    return [version for version in versions if version in VERSIONS and version >= 0x0300]


def _known_dtls_versions(body: bytes) -> list[int]:
    versions = (int.from_bytes(body[i : i + 2], "big") for i in range(0, len(body), 2))
    return [_OVER_DATAGRAMS[version] for version in versions if version in _OVER_DATAGRAMS]
