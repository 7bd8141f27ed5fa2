"""The matcher for HTTP."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Key, Option, Peeked, Predicate, Verdict
from txmux.matchers._bytes import begins_with, printable
from txmux.matchers._globs import Globs, hosts, names, option_globs
from txmux.matchers._http_head import (
    HEAD_LIMIT,
    LINE_LIMIT,
    METHODS,
    Request,
    Stage,
    parse_request,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["HttpMatcher"]

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FIRST_BYTES = frozenset({*(ord(method[0]) for method in METHODS), ord("\r"), ord("P")})
_VERSIONS_1 = tuple(f"1.{minor}" for minor in range(10))


@attrs.frozen
class _HttpPredicate:
    http1: bool
    http2: bool
    methods: frozenset[str] | None
    host: Globs | None
    path: Globs | None
    version: Globs | None
    key: Key | None

    @property
    def first_bytes(self) -> frozenset[int]:
        return _FIRST_BYTES

    @property
    def longest(self) -> int:
        if not self.http1:
            return len(_PREFACE)
        return LINE_LIMIT if self.host is None else HEAD_LIMIT

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if self.http2:
            preface = begins_with(peeked.data, _PREFACE)
            if preface is not Verdict.NO:
                return preface
        return self._ask(peeked.parsed(parse_request)) if self.http1 else Verdict.NO

    def _ask(self, request: Request) -> Verdict:
        if request.stage is Stage.REFUSED or not self._fits(request):
            return Verdict.NO
        if request.stage < Stage.FIELDS:
            return Verdict.NEED_MORE
        if self.host is None or request.host is not None:
            return Verdict.MATCH
        return Verdict.NO if request.stage is Stage.DONE else Verdict.NEED_MORE

    def _fits(self, request: Request) -> bool:
        """Tell whether all that is known so far is what is wanted."""
        return (
            (self.methods is None or _method_fits(self.methods, request))
            and (self.path is None or _path_fits(self.path, request))
            and (
                self.version is None or not request.version or self.version.matches(request.version)
            )
            and (self.host is None or request.host is None or self.host.matches(request.host))
        )

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        if peeked.startswith(_PREFACE):
            return {"version": "2"}
        request = peeked.parsed(parse_request)
        method = request.method if request.stage > Stage.METHOD else ""
        facts = {"method": method, "host": request.host, "version": request.version}
        return {name: printable(value) for name, value in facts.items() if value}


def _host(peeked: Peeked) -> str | None:
    """Read the name that all ``host=`` predicates hang on."""
    request = peeked.parsed(parse_request)
    if request.host is not None:
        return request.host.lower().removesuffix(".")
    return "" if request.stage in {Stage.REFUSED, Stage.DONE} else None


@implementer(IProtocolMatcher)
class HttpMatcher:
    """Matches the first request of an HTTP/1 client (RFC 9112, section 3) and the preface of HTTP/2.

    Without options the request line is enough: a known method, a target, ``HTTP/1.`` and a digit. HTTP/2 without
    TLS is known by its preface of 24 bytes (RFC 9113, section 3.4); what it asks for comes in compressed frames, so
    it is no match once ``method=``, ``host=`` or ``path=`` is given.
    """

    name = "http"
    summary = "HTTP/1.0 and 1.1 by the first request, HTTP/2 by its preface"
    options = (
        Option("host", "globs of the host that is asked for, without port", "www.example.com"),
        Option("path", "globs of the path, as sent and without the query", "/api/*,/health"),
        Option("method", "globs of the method", "GET,HEAD"),
        Option("version", "globs of the version: 1.0 1.1 2", "1.*"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate.

        Raises:
            OptionError: The patterns of an option cannot be used, or no request can meet all of them.
        """
        read_version = partial(names, known=("1.0", "1.1", "2", "2.0"))
        version = option_globs(options, "version", read_version)
        http1 = version is None or any(map(version.matches, _VERSIONS_1))
        http2 = version is None or version.matches("2") or version.matches("2.0")
        if not options.keys().isdisjoint({"host", "path", "method"}):
            if not http1:
                raise OptionError(
                    "version",
                    "method, host and path of HTTP/2 cannot be seen; leave those options out",
                )
            http2 = False
        host = option_globs(options, "host", hosts)
        method = option_globs(options, "method", partial(names, known=sorted(METHODS)))
        return _HttpPredicate(
            http1=http1,
            http2=http2,
            methods=frozenset(filter(method.matches, METHODS)) if method else None,
            host=host,
            key=host.key(_host) if host else None,
            path=option_globs(options, "path"),
            version=version,
        )


def _method_fits(methods: frozenset[str], request: Request) -> bool:
    if request.stage is Stage.METHOD:
        return any(method.startswith(request.method) for method in methods)
    return request.method in methods


def _path_fits(wanted: Globs, request: Request) -> bool:
    if request.stage < Stage.TARGET:
        return True
    path, query, _ = request.target.partition("?")
    if request.stage is Stage.TARGET and not (query and path.startswith("/")):
        return not path.startswith("/") or wanted.could_match_prefix(path)
    return request.path is not None and wanted.matches(request.path)
