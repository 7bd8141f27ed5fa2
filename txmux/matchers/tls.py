"""The matcher for TLS."""

import re
from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.interfaces import IProtocolMatcher, NameKey, Option, Peeked, Predicate, Verdict
from txmux.wire.client_hello import (
    LONGEST_HELLO,
    SSLV2_FIRST_BYTES,
    parse_client_hello,
    read_record_header,
    read_sslv2_beginning,
)
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.hello.options import (
    ALPN,
    ECH,
    HELLO,
    SNI,
    HelloOptions,
    hello_facts,
    hello_options,
    name_in,
)

_MATCH, _NEED_MORE = Verdict.MATCH, Verdict.NEED_MORE
# The header of a record, and the type of the message in it: nearly all come whole.
_BEGINNING = re.compile(rb"\x16\x03[\0-\x04](?:\0[^\0]|[\x01-\x3f].|\x40\0)\x01", re.DOTALL).match


class _TlsBase:
    __slots__ = ()
    first_bytes = SSLV2_FIRST_BYTES | {0x16}

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        return hello_facts(peeked.parsed(parse_client_hello))


@frozen
class _TlsPredicate(_TlsBase):
    longest: int = 6

    def naming(self, fact: str) -> Predicate:
        return _ClientHelloPredicate(HelloOptions()) if fact == "sni" else self

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if _BEGINNING(peeked.data):
            return _MATCH
        cursor = Cursor(peeked.data)
        try:
            if peeked.data and peeked.data[0] in SSLV2_FIRST_BYTES:
                read_sslv2_beginning(cursor)
            else:
                read_record_header(cursor)
                cursor.number(1, 1, 1)
        except ShortError:
            return Verdict.NEED_MORE
        except MalformedError:
            return Verdict.NO
        return Verdict.MATCH


@frozen
class _ClientHelloPredicate(_TlsBase):
    wanted: HelloOptions
    longest: int = LONGEST_HELLO
    reads_hello: bool = True

    @property
    def key(self) -> NameKey | None:
        return self.wanted.sni.key(_server_name) if self.wanted.sni else None

    def __call__(self, peeked: Peeked, /) -> Verdict:
        reader = peeked.parsed(parse_client_hello)
        if reader.malformed or not self.wanted.fit(reader):
            return Verdict.NO
        return _MATCH if reader.hello else _NEED_MORE


def _server_name(peeked: Peeked) -> str | None:
    return name_in(peeked.parsed(parse_client_hello))


@implementer(IProtocolMatcher)
class TlsMatcher:
    """Matches the ClientHello of a TLS client, SSL 2.0 to TLS 1.3 (RFC 8446, sections 5.1 and 4.1.2).

    Without options the header of the first record and the type of the message in it are enough, six bytes; in the
    format of SSL 2.0 (RFC 5246, appendix E.2) its length, type and version, five bytes. With options the whole hello
    is read, from as many records as it takes; it says ``no`` as soon as something in it is not what is wanted.
    """

    name = "tls"
    summary = "TLS, by what the client offers in its first message"
    options = (
        SNI,
        Option("alpn", ALPN, "h2,http/1.1", "protocol", needs=HELLO),
        Option(
            "version",
            "globs of the highest version offered: ssl2 ssl3 1.0 1.1 1.2 1.3",
            "1.2,1.3",
            needs=HELLO,
        ),
        ECH,
        Option(
            "ja4", "globs of the client's JA4 fingerprint", "t13d1516h2_8daaf6152771_*", needs=HELLO
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        wanted = hello_options(options)
        return _ClientHelloPredicate(wanted) if wanted else _TlsPredicate()


tls = TlsMatcher()
