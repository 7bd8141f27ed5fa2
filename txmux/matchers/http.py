"""The matcher for HTTP."""

from collections.abc import Mapping
from functools import partial

import attrs
from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, NameKey, Option, Peeked, Predicate, Verdict
from txmux.wire import http2_fields as _http2_fields  # noqa: F401 - now, not for the first client
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, names, normal_host, option_globs
from txmux.wire.http2_opening import OPENING_LIMIT, PREFACE, Opening, parse_opening
from txmux.wire.http_head import (
    HEAD_LIMIT,
    LINE_LIMIT,
    METHODS,
    Request,
    Stage,
    host_without_port,
    parse_request,
    parse_upgrade,
)
from txmux.wire.predicates import begins_with

_FIRST_BYTES = frozenset(b"\r\n_-ABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Looking them up in their classes at every byte would cost more than comparing them.
_MATCH, _NO, _NEED_MORE = Verdict.MATCH, Verdict.NO, Verdict.NEED_MORE
_REFUSED, _METHOD, _TARGET = Stage.REFUSED, Stage.METHOD, Stage.TARGET
_FIELDS, _DONE = Stage.FIELDS, Stage.DONE
_PREFACE_BEGUN = (b"", PREFACE[:1])
_VERSION_2 = "2"
_VERSIONS_1 = tuple(f"1.{minor}" for minor in range(10))


_HEAD = 1024  # bytes: what clients send before a Host that comes late


@frozen
class _HttpPredicate:
    http1: bool
    http2: bool
    methods: frozenset[str] | None
    host: Globs | None
    path: Globs | None
    version: Globs | None
    upgrade: Globs | None
    key: NameKey | None
    named: bool = False
    """Whether the host has to be known, whatever it is."""
    _chooses: bool = attrs.field(init=False)
    """Whether it depends on what `_fits` looks at."""

    @_chooses.default
    def _find_chooses(self) -> bool:
        return self._asks or self.version is not None

    @property
    def first_bytes(self) -> frozenset[int]:
        return _FIRST_BYTES

    @property
    def longest(self) -> int:
        http1 = HEAD_LIMIT if self.host or self.upgrade or self.named else LINE_LIMIT
        http2 = OPENING_LIMIT if self._asks else len(PREFACE)
        return max(http1 * self.http1, http2 * self.http2)

    @property
    def _asks(self) -> bool:
        unasked = self.methods is None and self.host is None and self.path is None
        return self.named or not unasked

    def naming(self, fact: str) -> Predicate:
        return attrs.evolve(self, named=True) if fact == "host" else self

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if self.http2 and peeked.data[:1] in _PREFACE_BEGUN:
            preface = begins_with(peeked.data, PREFACE)
            if preface is _MATCH and self._asks:
                return self._ask(_http2_request(peeked.parsed(parse_opening)), b"")
            if preface is not _NO:
                return preface
        if not self.http1:
            return _NO
        if self.upgrade is None:
            return self._ask(peeked.parsed(parse_request), peeked.data)
        return self._ask_upgrade(peeked, self.upgrade)

    def _ask_upgrade(self, peeked: Peeked, globs: Globs) -> Verdict:
        upgrade = peeked.parsed(parse_upgrade)
        if self._chooses or upgrade.request.stage < _FIELDS:
            # `upgrade.request` lacks the fields that the host is read from.
            is_asked = self.host is not None or self.named
            request = peeked.parsed(parse_request) if is_asked else upgrade.request
            verdict = self._ask(request, peeked.data)
            if verdict is not _MATCH:
                return verdict
        if upgrade.protocols and id(globs) not in upgrade.compared:
            if any(map(globs.matches, upgrade.protocols)):
                return _MATCH
            upgrade.compared.add(id(globs))
        return _NO if upgrade.done else _NEED_MORE

    def _ask(self, request: Request, data: bytes) -> Verdict:
        stage = request.stage
        if stage is _FIELDS and id(self) in request.compared:
            return _NEED_MORE
        if stage is _REFUSED or (self._chooses and not self._fits(request, data)):
            return _NO
        if stage < _FIELDS:
            return _NEED_MORE
        if (self.host is None and not self.named) or request.host is not None:
            return _MATCH
        if stage is _DONE:
            return _MATCH if self.host is None else _NO
        # Nothing is new until more fields are read.
        request.compared.add(id(self))
        return _NEED_MORE

    def _fits(self, request: Request, data: bytes) -> bool:
        return (
            (self.methods is None or _method_fits(self.methods, request))
            and (self.path is None or _path_fits(self.path, request, data))
            and (
                self.version is None
                or request.version in {"", _VERSION_2}
                or self.version.matches(request.version)
            )
            and (self.host is None or _host_fits(self.host, request))
        )

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        if peeked.data.startswith(PREFACE):
            # Decoding a header section is too expensive for facts alone.
            request = _http2_request(peeked.parsed(parse_opening) if self._asks else Opening())
        else:
            request = peeked.parsed(parse_request)
        if request.stage is _REFUSED:
            return {}
        facts = {}
        if request.method and request.stage > _METHOD:
            facts["method"] = printable(request.method)
        if request.host:
            facts["host"] = printable(request.host)
        if request.version:
            facts["version"] = request.version
        return facts


def _http2_request(opening: Opening) -> Request:
    if opening.fields is None:
        return Request(_REFUSED if opening.refused else _METHOD, version=_VERSION_2)
    authority = opening.fields.get(":authority", opening.fields.get("host"))
    return Request(
        _DONE,
        method=opening.fields[":method"],
        target=opening.fields.get(":path", ""),
        version=_VERSION_2,
        host=None if authority is None else host_without_port(authority),
    )


def _host(peeked: Peeked) -> str | None:
    preface = begins_with(peeked.data, PREFACE)
    if preface is _NO:
        request = peeked.parsed(parse_request)
    elif preface is _MATCH:
        request = _http2_request(peeked.parsed(parse_opening))
    else:
        return None
    if request.host is not None:
        return normal_host(request.host)
    return "" if request.stage in {_REFUSED, _DONE} else None


def _host_begun(peeked: Peeked) -> str:
    return normal_host(peeked.parsed(parse_request).host_begun)


@implementer(IProtocolMatcher)
class HttpMatcher:
    """Matches the first request of an HTTP client without TLS.

    That is, of HTTP/1, the request line (RFC 9112, section 3): a known method, a target, ``HTTP/1.`` and a digit; and of
    HTTP/2 the preface of 24 bytes (RFC 9113, section 3.4).

    With ``method=``, ``host=`` or ``path=``, HTTP/2 is undecided until its first HEADERS frame is there (section 8.3.1).
    A client may wait for the server's SETTINGS before it sends that one. What it has sent by then is also how a client
    begins that does not wait, so no answer but *undecided* can hold for both.

    With ``upgrade=`` it is HTTP/1 alone: HTTP/2 has no such field (section 8.6), and a client asks for another protocol
    there only when the server has said that it may (RFC 8441, section 3).
    """

    name = "http"
    summary = "HTTP/1.0, 1.1 and 2 without TLS, by the first request"
    options = (
        Option(
            "host",
            "globs of the host that is asked for, without port",
            "www.example.com",
            "host",
            needs=_HEAD,
        ),
        Option(
            "path", "globs of the path, as sent and without the query", "/api/*,/health", "path"
        ),
        Option("method", "globs of the method", "GET,HEAD"),
        Option("version", "globs of the version: 1.0 1.1 2", "1.*"),
        Option(
            "upgrade",
            "globs of protocols that the client offers to change to",
            "websocket",
            needs=_HEAD,
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        read_version = partial(names, known=("1.0", "1.1", "2", "2.0"))
        version = option_globs(options, "version", read_version)
        http1 = version is None or any(map(version.matches, _VERSIONS_1))
        http2 = version is None or version.matches(_VERSION_2) or version.matches("2.0")
        upgrade = option_globs(options, "upgrade", _protocols)
        if upgrade and not http1:
            raise OptionError("upgrade", "is of HTTP/1 alone; take it out, or write version=1.*")
        host = option_globs(options, "host", hosts)
        method = option_globs(options, "method", partial(names, known=sorted(METHODS)))
        return _HttpPredicate(
            http1=http1,
            http2=http2 and upgrade is None,
            methods=frozenset(filter(method.matches, METHODS)) if method else None,
            host=host,
            key=host.key(_host, _host_begun) if host else None,
            path=option_globs(options, "path"),
            version=version,
            upgrade=upgrade,
        )


http = HttpMatcher()


def _protocols(text: str) -> Globs:
    # They are compared in lower case (RFC 9110, section 7.8).
    return names(text if text.startswith("~") else text.lower())


def _method_fits(methods: frozenset[str], request: Request) -> bool:
    if request.stage is _METHOD:
        return any(method.startswith(request.method) for method in methods)
    return request.method in methods


def _host_fits(globs: Globs, request: Request) -> bool:
    if request.host is not None:
        return globs.matches(request.host)
    return not request.host_begun or globs.could_match_prefix(request.host_begun)


def _path_fits(globs: Globs, request: Request, data: bytes) -> bool:
    if request.stage < _TARGET or id(globs) in request.compared:
        return True
    if request.stage is not _TARGET:
        return request.path is not None and globs.matches(request.path)
    path, is_whole = request.path_begun(data, globs.longest_head + 1)
    if not is_whole:
        return not path or globs.could_match_prefix(path)
    fits = request.method != "CONNECT" and globs.matches(path)
    if fits:
        request.compared.add(id(globs))
    return fits
