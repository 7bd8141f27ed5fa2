"""The matcher for TLS."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Key, Option, Peeked, Predicate, Verdict
from txmux.matchers._bytes import printable
from txmux.matchers._client_hello import (
    LONGEST_HELLO,
    VERSIONS,
    HelloReader,
    parse_client_hello,
    read_record_header,
)
from txmux.matchers._cursor import Cursor, MalformedError, ShortError
from txmux.matchers._globs import Globs, hosts, names, option_globs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TlsMatcher"]


class _TlsBase:
    """What all TLS predicates have: how a stream begins, and what it tells of the hello as far as it has come."""

    __slots__ = ()
    first_bytes = frozenset({0x16})

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        reader = peeked.parsed(parse_client_hello)
        facts = {"sni": reader.sni, "alpn": ",".join(reader.alpn or ()), "tls": reader.version}
        return {name: printable(value) for name, value in facts.items() if value}


@attrs.frozen
class _TlsPredicate(_TlsBase):
    longest: int = 6

    def __call__(self, peeked: Peeked, /) -> Verdict:
        cursor = Cursor(peeked.data)
        try:
            read_record_header(cursor)
            cursor.number(1, 1, 1)
        except ShortError:
            return Verdict.NEED_MORE
        except MalformedError:
            return Verdict.NO
        return Verdict.MATCH


@attrs.frozen
class _ClientHelloPredicate(_TlsBase):
    sni: Globs | None
    alpn: Globs | None
    version: Globs | None
    key: Key | None
    longest: int = LONGEST_HELLO

    def __call__(self, peeked: Peeked, /) -> Verdict:
        reader = peeked.parsed(parse_client_hello)
        if reader.malformed or not self._fits(reader):
            return Verdict.NO
        return Verdict.MATCH if reader.hello else Verdict.NEED_MORE

    def _fits(self, reader: HelloReader) -> bool:
        """Tell whether all that is known so far is what is wanted; at the end all is known."""
        if self.sni and reader.sni is None and reader.hello:
            return False
        if self.sni and reader.sni is not None and not self.sni.matches(reader.sni):
            return False
        if self.alpn and reader.alpn is not None and not any(map(self.alpn.matches, reader.alpn)):
            return False
        return not self.version or reader.version is None or self.version.matches(reader.version)


def _server_name(peeked: Peeked) -> str | None:
    """Read the name that all ``sni=`` predicates hang on."""
    reader = peeked.parsed(parse_client_hello)
    if reader.sni is not None:
        return reader.sni
    return "" if reader.hello or reader.malformed else None


@implementer(IProtocolMatcher)
class TlsMatcher:
    """Matches the ClientHello of a TLS client, SSL 3.0 to TLS 1.3 (RFC 8446, sections 5.1 and 4.1.2).

    Without options the header of the first record and the type of the message in it are enough, six bytes. With
    options the whole hello is read, from as many records as it takes; it says ``no`` as soon as something
    in it is not what is wanted.
    """

    name = "tls"
    summary = "TLS, by what the client offers in its first message"
    options = (
        Option(
            "sni", "globs of the server name that is asked for", "www.example.com,*.example.org"
        ),
        Option(
            "alpn", "globs of application protocols; one that is offered is enough", "h2,http/1.1"
        ),
        Option("version", "globs of the highest version offered: ssl3 1.0 1.1 1.2 1.3", "1.2,1.3"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate.

        Raises:
            OptionError: The patterns of an option cannot be used.
        """
        if not options:
            return _TlsPredicate()
        sni = option_globs(options, "sni", hosts)
        return _ClientHelloPredicate(
            key=sni.key(_server_name) if sni else None,
            sni=sni,
            alpn=option_globs(options, "alpn"),
            version=option_globs(
                options, "version", partial(names, known=tuple(VERSIONS.values()))
            ),
        )
