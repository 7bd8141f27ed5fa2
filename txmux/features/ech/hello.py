"""Encrypted ClientHello in split mode (RFC 9849): the inner hello is opened here, and TLS ends at the server that it is for."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from typing_extensions import override

from txmux.classes import frozen
from txmux.features.ech.forwarding import can_forward
from txmux.features.ech.hpke import AEADS, HKDF_SHA256, X25519, Context, shared_secret
from txmux.features.ech.rows import HELLOS
from txmux.telemetry.counting.counter_groups import ListenerCounts
from txmux.wire.client_hello import ClientHello, HelloReader, parse_client_hello, read_hello
from txmux.wire.cursor import Cursor, IllegalHelloError, MalformedError, ShortError
from txmux.wire.facts import printable
from txmux.wire.hello.records import records, take_hello
from txmux.wire.hello.second import ILLEGAL_PARAMETER, MALFORMED, SecondHello, check_same
from txmux.wire.hello.whole import ENCRYPTED_CLIENT_HELLO, SUPPORTED_VERSIONS
from txmux.wire.preamble import InnerHello

VERSION = ENCRYPTED_CLIENT_HELLO
"""The number of the extension, and that of a configuration."""

DECRYPT_ERROR, MISSING_EXTENSION = 51, 109

_OUTER_EXTENSIONS = 0xFD00
_TLS13 = 0x0304
_OUTER, _INNER = b"\0", b"\1"
_MOST_EXTENSIONS = 128  # of a hello; clients have about thirty
_USUAL_NAME = 64  # bytes that hide how long a name is
_MANDATORY = 0x8000  # of an extension of a configuration
_CLIENT_HELLO = 1
_HEADER = 4
_SUITES = frozenset((HKDF_SHA256, aead) for aead in AEADS)


@frozen
class Config:
    """One ECHConfig (RFC 9849, section 4).

    Attributes:
        raw: All of it.
        id: What clients name it by.
        public_key: Of X25519.
        suites: Its pairs of KDF and AEAD that can be used here.
        public_name: The name that clients show.
    """

    raw: bytes
    id: int
    public_key: bytes
    suites: frozenset[tuple[int, int]]
    public_name: str


@frozen
class EchKey:
    """A configuration with its private key, which opens hellos."""

    config: Config
    private: X25519PrivateKey


def read_configs(data: bytes) -> Iterator[Config]:
    """Read an ECHConfigList; configurations of other versions, or with other keys than X25519, are left out.

    Raises:
        MalformedError: It is none.
    """
    cursor = Cursor(data)
    try:
        configs = Cursor(cursor.sized(2, 4))
        cursor.end()
        while configs.left:
            start = configs.at
            version, contents = configs.number(2, 0, 0xFFFF), Cursor(configs.sized(2))
            if version == VERSION:
                yield from _config(configs.data[start : configs.at], contents)
    except ShortError:
        raise MalformedError from None


def _config(raw: bytes, contents: Cursor) -> Iterator[Config]:
    number, kem = contents.number(1, 0, 0xFF), contents.number(2, 0, 0xFFFF)
    public, suites = contents.sized(2), _numbers(contents.sized(2))
    contents.take(1)  # the most bytes of a name
    name = contents.sized(1, 1)
    extensions = _extensions(contents.sized(2))
    contents.end()
    if kem == X25519 and len(public) == 32 and all(kind < _MANDATORY for kind in extensions):
        pairs = _SUITES.intersection(zip(suites[::2], suites[1::2], strict=False))
        yield Config(raw, number, public, pairs, name.decode("latin-1"))


def make_config(number: int, public: bytes, aeads: Sequence[int], public_name: str) -> bytes:
    """Make an ECHConfigList with one configuration.

    Args:
        number: What clients name it by, 0 to 255.
        public: The key.
        aeads: Of `AEADS`, the best first.
        public_name: The name that clients show.
    """
    suites = b"".join(_number(HKDF_SHA256) + _number(aead) for aead in aeads)
    name = public_name.encode("ascii")
    contents = bytes([number]) + _number(X25519) + _with_size(public) + _with_size(suites)
    contents += bytes([_USUAL_NAME, len(name)]) + name + _number(0)
    return _with_size(_number(VERSION) + _with_size(contents))


class _Hello(NamedTuple):
    """A hello without the header of its message."""

    start: bytes  # its version and random
    session: bytes
    offers: bytes  # cipher suites and compression methods
    extensions: Mapping[int, bytes]
    rest: bytes  # what is behind it

    def encoded(self) -> bytes:
        extensions = (_number(kind) + _with_size(one) for kind, one in self.extensions.items())
        session = bytes([len(self.session)]) + self.session
        return self.start + session + self.offers + _with_size(b"".join(extensions))


def _parsed(data: bytes) -> _Hello:
    cursor = Cursor(data)
    start, session = cursor.take(2 + 32), cursor.sized(1)
    at = cursor.at
    cursor.sized(2)
    cursor.sized(1, 1)
    offers, extensions = data[at : cursor.at], _extensions(cursor.sized(2))
    return _Hello(start, session, offers, extensions, data[cursor.at :])


def _extensions(data: bytes) -> dict[int, bytes]:
    cursor, extensions = Cursor(data), dict[int, bytes]()
    while cursor.left:
        kind = cursor.number(2, 0, 0xFFFF)
        if kind in extensions or len(extensions) == _MOST_EXTENSIONS:
            raise MalformedError
        extensions[kind] = cursor.sized(2)
    return extensions


class _Outer(NamedTuple):
    """A hello with another one in it; its `key` is the KDF, the AEAD, and the number of the configuration."""

    hello: _Hello
    key: tuple[int, int, int]
    encapsulated: bytes
    payload: bytes
    associated: bytes


def _outer(message: bytes) -> _Outer:
    hello = _parsed(message[_HEADER:])
    cursor = Cursor(hello.extensions.get(VERSION, b""))
    cursor.literal(_OUTER)
    key = cursor.number(2, 0, 0xFFFF), cursor.number(2, 0, 0xFFFF), cursor.number(1, 0, 0xFF)
    encapsulated, payload = cursor.sized(2), cursor.sized(2)
    cursor.end()
    empty = cursor.data[: cursor.at - len(payload)] + bytes(len(payload))
    associated = hello._replace(extensions={**hello.extensions, VERSION: empty}).encoded()
    return _Outer(hello, key, encapsulated, payload, associated)


@contextmanager
def _refused(alert: int, why: str) -> Iterator[None]:
    try:
        yield
    except (MalformedError, ShortError):
        raise IllegalHelloError(alert, why) from None


class SecondInnerHello(SecondHello):
    """Opens the hello that a HelloRetryRequest asks for (section 7.1.1), and puts the inner one in its place.

    Args:
        first: The first hello as it came.
        inner: The inner hello of that.
        key: What the first one was encrypted by: KDF, AEAD, and number of the configuration.
        context: The messages of the client.
    """

    facts = MappingProxyType({"ech_retry": "yes"})

    def __init__(
        self,
        first: ClientHello | None,
        inner: ClientHello | None,
        key: tuple[int, int, int],
        context: Context,
    ) -> None:
        super().__init__(first)
        self._inner, self._key, self._context = inner, key, context

    @override
    def _checked(self, hello: ClientHello, stream: bytes) -> bytes:
        if not hello.ech:
            raise IllegalHelloError(
                MISSING_EXTENSION, "the second hello has no encrypted one with it"
            )
        with _refused(ILLEGAL_PARAMETER, MALFORMED):
            message, end = take_hello(stream)
            outer = _outer(message)
        if outer.key != self._key or outer.encapsulated:
            raise IllegalHelloError(
                ILLEGAL_PARAMETER, "the second hello is encrypted by another key"
            )
        with _refused(DECRYPT_ERROR, "the second hello does not open"):
            encoded = self._context.open(outer.payload, outer.associated)
        inner = _restored(encoded, outer.hello)
        check_same(self._first, hello)
        check_same(self._inner, read_hello(inner), " inside")
        self.is_opened = True
        return records(inner, stream[1:3]) + stream[end:]


def open_hello(message: bytes, keys: Mapping[int, EchKey]) -> tuple[bytes, SecondInnerHello]:
    """Return the inner hello of an outer one. There is at most one key exchange.

    Args:
        message: The whole ClientHello that came.
        keys: By the number of their configuration.

    Raises:
        MalformedError, ShortError: None of the keys opens it.
        IllegalHelloError: The inner hello is not legal.
    """
    outer = _outer(message)
    key = keys.get(outer.key[2])
    if key is None or outer.key[:2] not in key.config.suites or outer.hello.rest:
        raise MalformedError
    shared = shared_secret(key.private, outer.encapsulated)
    context = Context(shared, b"tls ech\0" + key.config.raw, outer.key[1])
    encoded = context.open(outer.payload, outer.associated)
    inner = _restored(encoded, outer.hello)
    return inner, SecondInnerHello(read_hello(message), read_hello(inner), outer.key, context)


@_refused(ILLEGAL_PARAMETER, "the hidden hello is not legal")
def _restored(encoded: bytes, outer: _Hello) -> bytes:
    """Make the message of the inner hello from its short form (section 5.1)."""
    inner = _parsed(encoded)
    extensions: dict[int, bytes] = {}
    for kind, content in inner.extensions.items():
        found = {kind: content} if kind != _OUTER_EXTENSIONS else _referenced(content, outer)
        if not extensions.keys().isdisjoint(found):
            raise MalformedError
        extensions.update(found)
    versions = _numbers(extensions.get(SUPPORTED_VERSIONS, b"")[1:])
    if (
        inner.session
        or inner.rest.strip(b"\0")
        or extensions.get(VERSION) != _INNER
        or {version for version in versions if 0x0300 <= version <= _TLS13} != {_TLS13}
    ):
        raise MalformedError
    body = inner._replace(session=outer.session, extensions=extensions).encoded()
    message = bytes([_CLIENT_HELLO]) + len(body).to_bytes(3, "big") + body
    if read_hello(message) is None:  # no route could know its name
        raise MalformedError
    return message


def _referenced(references: bytes, outer: _Hello) -> dict[int, bytes]:
    """Take extensions of the outer hello, in their order there, each at most once."""
    cursor = Cursor(references)
    kinds = _numbers(cursor.sized(1, 2))
    cursor.end()
    found = {kind: content for kind, content in outer.extensions.items() if kind in kinds}
    if [*found] != kinds:
        raise MalformedError
    return found


class EchReader:
    """Opens the hello that a stream begins with, once that is whole, so that nothing depends on how the network cut it.

    Args:
        keys: By the number of their configuration.
        limit: The most bytes that are looked at.
        counts: Of the listener, to which its hello is added.
    """

    def __init__(
        self, keys: Mapping[int, EchKey], limit: int, counts: ListenerCounts | None = None
    ) -> None:
        self._keys, self._limit, self._counts = keys, limit, counts
        self._hello: HelloReader | None = None

    def read(self, data: bytes, *, last: bool = False) -> InnerHello | None:
        """Look at all bytes so far; ``None`` if more are needed, which with `last` will not come."""
        self._hello = hello = parse_client_hello(data[: self._limit], self._hello)
        if not hello.hello or not hello.ech:
            is_over = hello.hello or hello.malformed or last or len(data) >= self._limit
            return InnerHello(data, data, {}) if is_over else None
        facts = {"ech": "inner", "outer_sni": printable(hello.sni or "")}
        try:
            message, end = take_hello(data)
            inner, second = open_hello(message, self._keys)
        except IllegalHelloError as illegal:
            self._count("opened")
            return InnerHello(data, data, {**facts, "tls_error": str(illegal)}, illegal=illegal)
        except (MalformedError, ShortError):
            self._count("unopened")
            return InnerHello(data, data, {"ech": "outer"})
        self._count("opened")
        opened = records(inner, data[1:3])
        outer = {"ech": "outer"}
        stream = opened + data[end:]
        return InnerHello(
            data, stream, facts, second, end=len(opened), outer=outer, fits=can_forward
        )

    def _count(self, word: str) -> None:
        if self._counts is not None:
            self._counts.cells[HELLOS.positions[word]] += 1


def _number(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _numbers(data: bytes) -> list[int]:
    if len(data) % 2:
        raise MalformedError
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2)]


def _with_size(data: bytes) -> bytes:
    return _number(len(data)) + data
