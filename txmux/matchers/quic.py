"""The matcher for QUIC."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial

import attrs
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
from txmux.wire.globs import Globs, names, option_globs
from txmux.wire.hello.options import (
    ALPN,
    ECH,
    SNI,
    HelloOptions,
    hello_facts,
    hello_options,
    server_name,
    verdict_on,
)
from txmux.wire.quic.decided import DecidedHello
from txmux.wire.quic.header import VERSIONS
from txmux.wire.quic.opening import OTHER_VERSION, parse_opening

_LONG_HEADERS = frozenset(range(0x80, 0x100))


@frozen
class _QuicPredicate:
    version: Globs | None
    hello: HelloOptions | None
    longest: int = MOST_DATAGRAMS
    first_bytes: frozenset[int] = _LONG_HEADERS

    @property
    def drops(self) -> Callable[[Datagrams], bool]:
        return _drops_last

    @property
    def key(self) -> NameKey | None:
        sni = self.hello.sni if self.hello else None
        return sni.key(_server_name) if sni else None

    @property
    def guard(self) -> Callable[[Datagrams], DecidedHello] | None:
        return None if self.hello is None else _decided_hello

    def naming(self, fact: str) -> Predicate:
        if fact != "sni" or self.hello is not None:
            return self
        return attrs.evolve(self, hello=HelloOptions())

    def learnt(self, flow: Datagrams, /) -> dict[str, str]:
        opening = flow.parsed_all(parse_opening)
        if not opening.certain or opening.version is None:
            return {}
        return {"quic": opening.version, **hello_facts(opening.hello)}

    def __call__(self, flow: Datagrams, /) -> Verdict:
        opening = flow.parsed_all(parse_opening)
        if self.version and opening.version and not self.version.matches(opening.version):
            return Verdict.NO
        if self.hello is None and opening.certain:
            return Verdict.MATCH
        return verdict_on(opening, self.hello, flow)


def _server_name(flow: Datagrams) -> str | None:
    return server_name(flow.parsed_all(parse_opening))


def _drops_last(flow: Datagrams) -> bool:
    return flow.parsed_all(parse_opening).drops_last


def _decided_hello(flow: Datagrams) -> DecidedHello:
    return DecidedHello.from_opening(flow.parsed_all(parse_opening))


@implementer(IProtocolMatcher)
class QuicMatcher:
    """Matches the first packets of a QUIC client (RFC 9000, RFC 9001, RFC 9369), of which HTTP/3 is the best known.

    In versions 1 and 2 and draft-29, the first Initial packet has to be one that can be decrypted, and packets of type 0-RTT may come
    before it. With options the whole ClientHello is read, from as many packets, in up to four datagrams, as it takes. Of
    other versions there is only the header (RFC 8999), in a datagram that is long enough for a server to offer others.
    """

    name = "quic"
    summary = "QUIC and HTTP/3, by what the client offers in its first message"
    transports = (Transport.UDP,)
    options = (
        SNI,
        Option("alpn", ALPN, "h3", "protocol"),
        Option("version", "globs of the version of QUIC: 1 2 draft-29 other", "1,2"),
        ECH,
        Option("ja4", "globs of the client's JA4 fingerprint", "q13d0312h3_55b375c5d22e_*"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        version_names = (*(version.name for version in VERSIONS.values()), OTHER_VERSION)
        version = option_globs(options, "version", partial(names, known=version_names))
        of_hello = {name: value for name, value in options.items() if name != "version"}
        predicate = _QuicPredicate(version, hello_options(of_hello))
        # Imported now, not when the first client comes, and only if a rule needs it.
        importlib.import_module("txmux.wire.quic.initial")
        return predicate


quic = QuicMatcher()
