"""The matcher for DTLS."""

from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.interfaces import (
    MOST_DATAGRAMS,
    Datagrams,
    IProtocolMatcher,
    NameKey,
    Option,
    Predicate,
    Transport,
    Verdict,
)
from txmux.wire.client_hello import DTLS_VERSIONS
from txmux.wire.dtls import parse_dtls
from txmux.wire.hello.options import (
    ALPN,
    SNI,
    HelloOptions,
    hello_facts,
    hello_options,
    server_name,
    verdict_on,
)


@frozen
class _DtlsPredicate:
    wanted: HelloOptions | None
    first_bytes: frozenset[int] = frozenset({0x16})

    @property
    def longest(self) -> int:
        return MOST_DATAGRAMS if self.wanted else 1

    @property
    def key(self) -> NameKey | None:
        sni = self.wanted.sni if self.wanted else None
        return sni.key(_server_name) if sni else None

    def naming(self, fact: str) -> Predicate:
        return _DtlsPredicate(HelloOptions()) if fact == "sni" and not self.wanted else self

    def learnt(self, flow: Datagrams, /) -> dict[str, str]:
        return hello_facts(flow.parsed_all(parse_dtls).hello)

    def __call__(self, flow: Datagrams, /) -> Verdict:
        opening = flow.parsed_all(parse_dtls)
        if self.wanted is None:
            return Verdict.MATCH if opening.certain else Verdict.NO
        return verdict_on(opening, self.wanted, flow)


def _server_name(flow: Datagrams) -> str | None:
    return server_name(flow.parsed_all(parse_dtls))


@implementer(IProtocolMatcher)
class DtlsMatcher:
    """Matches the ClientHello of a DTLS client, 1.0 to 1.3 (RFC 6347, sections 4.1 and 4.2; RFC 9147, section 5.3).

    Without options one datagram with a piece of it is enough. With options the whole hello is read, from as many
    fragments, in up to four datagrams, as it takes.
    """

    name = "dtls"
    summary = "DTLS, by what the client offers in its first message"
    transports = (Transport.UDP,)
    options = (
        SNI,
        Option("alpn", ALPN, "coap"),
        Option("version", "globs of the highest version offered: 1.0 1.2 1.3", "1.2,1.3"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _DtlsPredicate(hello_options(options, DTLS_VERSIONS.values()))


dtls = DtlsMatcher()
