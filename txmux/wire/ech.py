"""Encrypted ClientHello in split mode (RFC 9849): the hidden hello is opened here, and TLS ends at the server that it is for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import attrs
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from txmux.wire.client_hello import HelloReader, parse_client_hello
from txmux.wire.cursor import Cursor, IllegalHelloError, MalformedError, ShortError
from txmux.wire.facts import printable
from txmux.wire.hello_records import records, take_hello
from txmux.wire.hpke import AEADS, HKDF_SHA256, X25519, Context, shared_secret

VERSION = 0xFE0D
"""The number of the extension, and that of a configuration."""

ILLEGAL_PARAMETER, DECRYPT_ERROR, MISSING_EXTENSION = 47, 51, 109

_OUTER_EXTENSIONS = 0xFD00
_SUPPORTED_VERSIONS, _TLS13 = 43, 0x0304
_OUTER, _INNER = 0, b"\1"
_MOST_EXTENSIONS = 128  # of a hello; clients have about thirty
_USUAL_NAME = 64  # bytes that hide how long a name is
_MANDATORY = 0x8000  # of an extension of a configuration
_CLIENT_HELLO = 1
_HEADER = 4


@attrs.frozen
class Config:
    """One ECHConfig (RFC 9849, section 4).

    Attributes:
        raw: All of it.
        id: What clients name it by.
        public_key: Of X25519.
        suites: Its pairs of KDF and AEAD.
        public_name: The name that clients show.
    """

    raw: bytes
    id: int
    public_key: bytes
    suites: frozenset[tuple[int, int]]
    public_name: str


@attrs.frozen
class Key:
    """A configuration that hellos can be opened by."""

    config: Config
    private: X25519PrivateKey


def read_configs(data: bytes) -> Iterator[Config]:
    """Read an ECHConfigList; configurations of other versions, or with other keys than X25519, are left out.

    Raises:
        MalformedError: It is none.
    """
    cursor = Cursor(data)
    try:
        if cursor.number(2, 4, 0xFFFF) != cursor.left:
            raise MalformedError
        while cursor.left:
            start = cursor.at
            version = cursor.number(2, 0, 0xFFFF)
            contents = Cursor(cursor.take(cursor.number(2, 0, 0xFFFF)))
            if version == VERSION:
                config = _config(data[start : cursor.at], contents)
                if config is not None:
                    yield config
    except ShortError:
        raise MalformedError from None


def _config(raw: bytes, contents: Cursor) -> Config | None:
    number, kem = contents.number(1, 0, 0xFF), contents.number(2, 0, 0xFFFF)
    public, suites = _sized(contents), _sized(contents)
    contents.number(1, 0, 0xFF)  # the most bytes of a name
    name = contents.take(contents.number(1, 1, 0xFF))
    extensions = Cursor(_sized(contents))
    contents.end()
    is_known = kem == X25519 and len(public) == 32
    while extensions.left:
        is_known &= extensions.number(2, 0, 0xFFFF) < _MANDATORY
        _sized(extensions)
    numbers = _numbers(suites)
    pairs = frozenset(zip(numbers[::2], numbers[1::2], strict=False))
    return Config(raw, number, public, pairs, name.decode("latin-1")) if is_known else None


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

    session: tuple[int, int]
    """Where its session ID begins, and where that ends."""
    at: int
    """Where the length of the extensions is."""
    end: int
    extensions: list[tuple[int, int, int]]
    """The number of each, where its contents begin, and where they end."""


def _parsed(data: bytes) -> _Hello:
    """Read a hello, behind which there may be more."""
    cursor = Cursor(data)
    extensions = []
    try:
        cursor.take(2 + 32)
        size = cursor.number(1, 0, 32)
        session = cursor.at, cursor.at + size
        cursor.take(size)
        _sized(cursor)
        cursor.take(cursor.number(1, 1, 0xFF))
        at = cursor.at
        end = at + 2 + cursor.number(2, 0, 0xFFFF)
        while cursor.at < end:
            kind, size = cursor.number(2, 0, 0xFFFF), cursor.number(2, 0, end - cursor.at - 2)
            extensions.append((kind, cursor.at, cursor.at + size))
            cursor.take(size)
            if len(extensions) > _MOST_EXTENSIONS:
                raise MalformedError
    except ShortError:
        raise MalformedError from None
    if len({kind for kind, _, _ in extensions}) < len(extensions):
        raise MalformedError
    return _Hello(session, at, end, extensions)


class _Sealed(NamedTuple):
    """What an outer hello has of the inner one."""

    suite: tuple[int, int]
    config_id: int
    encapsulated: bytes
    payload: bytes
    associated: bytes


def _sealed(data: bytes, outer: _Hello) -> _Sealed | None:
    for kind, start, end in outer.extensions:
        if kind == VERSION and data[start : start + 1] == bytes([_OUTER]):
            cursor = Cursor(data[start + 1 : end])
            try:
                suite = cursor.number(2, 0, 0xFFFF), cursor.number(2, 0, 0xFFFF)
                number, encapsulated = cursor.number(1, 0, 0xFF), _sized(cursor)
                payload = _sized(cursor)
            except ShortError:
                raise MalformedError from None
            cursor.end()
            associated = data[: end - len(payload)] + bytes(len(payload)) + data[end:]
            return _Sealed(suite, number, encapsulated, payload, associated)
    return None


@attrs.define(eq=False)
class Opened:
    """A hello that has been opened.

    Attributes:
        inner: The message that was hidden.
    """

    inner: bytes
    _suite: tuple[int, int]
    _config_id: int
    _context: Context

    def open_again(self, stream: bytes) -> bytes:
        """Open the second hello of a client, which has been asked for it by a HelloRetryRequest (section 7.1.1).

        Args:
            stream: Begins with it, and has all of it.

        Returns:
            The stream with the hidden hello in the place of the other.

        Raises:
            IllegalHelloError: It does not belong to the first one, or is not legal.
        """
        try:
            taken = take_hello(stream)
            if taken is None:  # its record goes on
                raise MalformedError  # noqa: TRY301 - as below
            data = taken[0][_HEADER:]
            outer = _parsed(data)
            sealed = _sealed(data, outer)
        except MalformedError:
            raise IllegalHelloError(ILLEGAL_PARAMETER, "the second hello is malformed") from None
        if sealed is None:
            raise IllegalHelloError(
                MISSING_EXTENSION, "the second hello has no encrypted one with it"
            )
        same = sealed.suite == self._suite and sealed.config_id == self._config_id
        if not same or sealed.encapsulated:
            raise IllegalHelloError(
                ILLEGAL_PARAMETER, "the second hello is encrypted by another key"
            )
        try:
            encoded = self._context.open(sealed.payload, sealed.associated)
        except MalformedError:
            raise IllegalHelloError(DECRYPT_ERROR, "the second hello does not open") from None
        return records(_restored(encoded, data, outer), stream[1:3]) + stream[taken[1] :]


def open_hello(message: bytes, keys: Mapping[int, Key]) -> Opened | None:
    """Open a hello; ``None`` if none of the keys does. There is at most one key exchange.

    Args:
        message: The whole ClientHello that came.
        keys: By the number of their configuration.

    Raises:
        IllegalHelloError: What was hidden is not legal.
    """
    try:
        data = message[_HEADER:]
        outer = _parsed(data)
        sealed = _sealed(data, outer)
        key = keys.get(sealed.config_id) if sealed is not None else None
        if sealed is None or key is None or sealed.suite not in key.config.suites:
            return None
        kdf, aead = sealed.suite
        if kdf != HKDF_SHA256 or aead not in AEADS or outer.end != len(data):
            return None
        shared = shared_secret(key.private, sealed.encapsulated)
        context = Context(shared, b"tls ech\0" + key.config.raw, aead)
        encoded = context.open(sealed.payload, sealed.associated)
    except MalformedError:
        return None
    return Opened(_restored(encoded, data, outer), sealed.suite, sealed.config_id, context)


def _restored(encoded: bytes, data: bytes, outer: _Hello) -> bytes:
    """Make the message of the inner hello from its short form (section 5.1)."""
    try:
        return _restore(encoded, data, outer)
    except MalformedError:
        raise IllegalHelloError(ILLEGAL_PARAMETER, "the hidden hello is not legal") from None


def _restore(encoded: bytes, data: bytes, outer: _Hello) -> bytes:
    inner = _parsed(encoded)
    if inner.session[0] != inner.session[1] or encoded[inner.end :].strip(b"\0"):
        raise MalformedError
    found: list[tuple[int, bytes]] = []
    for kind, start, end in inner.extensions:
        if kind == _OUTER_EXTENSIONS:
            found += _referenced(encoded[start:end], data, outer)
        else:
            found.append((kind, encoded[start:end]))
    contents = dict(found)
    versions = _numbers(contents.get(_SUPPORTED_VERSIONS, b"\0")[1:])
    if (
        len(contents) < len(found)
        or contents.get(VERSION) != _INNER
        or _TLS13 not in versions
        or any(0x0300 <= version < _TLS13 for version in versions)
    ):
        raise MalformedError
    session = data[outer.session[0] : outer.session[1]]
    body = encoded[: inner.session[0] - 1] + bytes([len(session)]) + session
    body += encoded[inner.session[1] : inner.at]
    body += _with_size(b"".join(_number(kind) + _with_size(content) for kind, content in found))
    return bytes([_CLIENT_HELLO]) + len(body).to_bytes(3, "big") + body


def _referenced(references: bytes, data: bytes, outer: _Hello) -> Iterator[tuple[int, bytes]]:
    """Take extensions of the outer hello, in their order there, each at most once."""
    if len(references) < 3 or references[0] != len(references) - 1 or references[0] % 2:
        raise MalformedError
    left = iter(outer.extensions)
    for wanted in _numbers(references[1:]):
        found = next((one for one in left if one[0] == wanted), None)
        if found is None or wanted == VERSION:
            raise MalformedError
        yield wanted, data[found[1] : found[2]]


@attrs.frozen
class Unsealed:
    """What is in a stream that may begin with a hidden hello.

    Attributes:
        received: The stream as it came.
        stream: The same with the hidden hello in the place of the other, if that was opened.
        end: Where the hidden hello ends in that.
        facts: For the access log.
        opened: What was hidden; ``None`` if nothing was opened.
        illegal: What is wrong with what was hidden.
    """

    received: bytes
    stream: bytes
    facts: Mapping[str, str]
    opened: Opened | None = None
    illegal: IllegalHelloError | None = None
    end: int = 0

    def unopened(self, stream: bytes) -> bytes:
        """Return what has come of a stream that has grown since."""
        return self.received + stream[len(self.stream) :]


class Unsealing:
    """Opens the hello that a stream begins with, once that is whole, so that nothing depends on how the network cut it.

    Args:
        keys: By the number of their configuration.
        limit: The most bytes that are looked at.
    """

    def __init__(self, keys: Mapping[int, Key], limit: int) -> None:
        self._keys, self._limit = keys, limit
        self._hello: HelloReader | None = None

    def read(self, data: bytes, *, last: bool = False) -> Unsealed | None:
        """Look at all bytes so far; ``None`` if more are needed, which with `last` will not come."""
        self._hello = hello = parse_client_hello(data[: self._limit], self._hello)
        if not hello.hello:
            ends = hello.malformed or last or len(data) >= self._limit
            return Unsealed(data, data, {}) if ends else None
        opened = None
        try:
            taken = take_hello(data) if hello.ech else None
        except MalformedError:
            taken = None
        facts = {"ech": "inner", "outer_sni": printable(hello.sni or "")}
        if taken is not None:
            try:
                opened = open_hello(taken[0], self._keys)
            except IllegalHelloError as illegal:
                facts["tls_error"] = str(illegal)
                return Unsealed(data, data, facts, illegal=illegal)
        if taken is None or opened is None:
            return Unsealed(data, data, {"ech": "outer"} if hello.ech else {})
        hidden = records(opened.inner, data[1:3])
        return Unsealed(data, hidden + data[taken[1] :], facts, opened, end=len(hidden))


def _number(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _numbers(data: bytes) -> list[int]:
    return [int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data) - 1, 2)]


def _with_size(data: bytes) -> bytes:
    return _number(len(data)) + data


def _sized(cursor: Cursor) -> bytes:
    return cursor.take(cursor.number(2, 0, 0xFFFF))
