"""The matcher for TLS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Key, Option, Peeked, Predicate, Verdict
from txmux.wire.client_hello import (
    LONGEST_HELLO,
    VERSIONS,
    HelloReader,
    parse_client_hello,
    read_record_header,
)
from txmux.wire.cursor import Cursor, MalformedError, ShortError
from txmux.wire.globs import Globs, names, option_globs
from txmux.wire.hello_options import ServerNames, hello_facts, name_in, server_names
from txmux.wire.sslv2_hello import FIRST_BYTES as SSLV2_FIRST_BYTES
from txmux.wire.sslv2_hello import read_sslv2_beginning

if TYPE_CHECKING:
    from collections.abc import Mapping


class _TlsBase:
    """What all TLS predicates have: how a stream begins, and what it tells of the hello as far as it has come."""

    __slots__ = ()
    first_bytes = SSLV2_FIRST_BYTES | {0x16}

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        return hello_facts(peeked.parsed(parse_client_hello))


@attrs.frozen
class _TlsPredicate(_TlsBase):
    longest: int = 6

    def __call__(self, peeked: Peeked, /) -> Verdict:
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


@attrs.frozen
class _ClientHelloPredicate(_TlsBase):
    sni: ServerNames | None
    alpn: Globs | None
    version: Globs | None
    ech: bool | None
    ja4: Globs | None
    longest: int = LONGEST_HELLO

    @property
    def key(self) -> Key | None:
        return self.sni.key(_server_name) if self.sni else None

    def __call__(self, peeked: Peeked, /) -> Verdict:
        reader = peeked.parsed(parse_client_hello)
        if reader.malformed or not self._fits(reader):
            return Verdict.NO
        return Verdict.MATCH if reader.hello else Verdict.NEED_MORE

    def _fits(self, reader: HelloReader) -> bool:
        """Tell whether all that is known so far is what is wanted; at the end all is known."""
        if self.sni and not self.sni.fit(reader):
            return False
        if self.alpn and reader.alpn is not None and not any(map(self.alpn.matches, reader.alpn)):
            return False
        if self.version and reader.version and not self.version.matches(reader.version):
            return False
        if self.ech is not None and reader.ech is not None and reader.ech is not self.ech:
            return False
        if not self.ja4 or not reader.hello:
            return True
        ja4 = reader.ja4()
        return ja4 is not None and self.ja4.matches(ja4)


def _server_name(peeked: Peeked) -> str | None:
    """Read the name that all ``sni=`` predicates depend on."""
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
        Option(
            "sni",
            "globs of the server name that is asked for; 'none' is a hello without one",
            "www.example.com,*.example.org",
        ),
        Option(
            "alpn", "globs of application protocols; one that is offered is enough", "h2,http/1.1"
        ),
        Option(
            "version", "globs of the highest version offered: ssl2 ssl3 1.0 1.1 1.2 1.3", "1.2,1.3"
        ),
        Option("ech", "yes or no: whether the hello has an encrypted one with it", "yes"),
        Option("ja4", "globs of the client's JA4 fingerprint", "t13d1516h2_8daaf6152771_*"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate."""
        if not options:
            return _TlsPredicate()
        return _ClientHelloPredicate(
            sni=server_names(options),
            alpn=option_globs(options, "alpn"),
            version=option_globs(
                options, "version", partial(names, known=tuple(VERSIONS.values()))
            ),
            ech=_yes_or_no(options, "ech"),
            ja4=option_globs(options, "ja4"),
        )


tls = TlsMatcher()


def _yes_or_no(options: Mapping[str, str], name: str) -> bool | None:
    if name not in options:
        return None
    if options[name] not in {"yes", "no"}:
        raise OptionError(name, f"{options[name]!r} is neither 'yes' nor 'no'; write one of them")
    return options[name] == "yes"
