"""The head of the first HTTP/1 request of a stream, read as far as it has come."""

from __future__ import annotations

import enum
import re

import attrs

from txmux.wire.copied import copied

__all__ = [
    "HEAD_LIMIT",
    "LINE_LIMIT",
    "METHODS",
    "MOST_FIELDS",
    "Request",
    "Stage",
    "host_without_port",
    "parse_request",
]

# PRI, which the registry has too, only ever means HTTP/2.
_REGISTERED = """
    ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY
    MKCALENDAR MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PROPFIND PROPPATCH PUT QUERY
    REBIND REPORT SEARCH TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
"""
# UPnP, caches, Remote Desktop Gateway, SSTP, Icecast and debuggers use these.
_UNREGISTERED = """
    BAN BREW DEBUG M-SEARCH NOTIFY PURGE RDG_IN_DATA RDG_OUT_DATA RPC_IN_DATA RPC_OUT_DATA SOURCE
    SSTP_DUPLEX_POST SUBSCRIBE TRACK UNSUBSCRIBE
"""
METHODS = frozenset((_REGISTERED + _UNREGISTERED).split())
"""The methods of the IANA registry and others in wide use; case counts (RFC 9110, section 9.1)."""

LINE_LIMIT = 16 * 1024
"""The most bytes up to the end of the request line."""
HEAD_LIMIT = 64 * 1024
"""The most bytes up to the end of the line that names the host."""
MOST_FIELDS = 1000
"""The most fields up to the one that is looked for; servers take a hundred or a few."""

_BEGINNINGS = frozenset(method[:length] for method in METHODS for length in range(len(method) + 1))
_METHOD = re.compile(rb"(?:\r\n){0,2}([A-Z_-]+) ")
_METHOD_BEGINNING = re.compile(rb"(?:\r\n)?\r|(?:\r\n){0,2}([A-Z_-]*)")
_TARGET_END = re.compile(rb"[\x00-\x20\x7f]")
_VERSION = re.compile(rb"HTTP/1\.([0-9])(?:\r?(\n)|\r?\Z)")
_VERSION_BEGINNING = b"HTTP/1."
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)([^?#]*)")
# What nearly all clients send, in one packet; anything else takes the long way.
_USUAL = re.compile(
    rb"([A-Z]+) (/[!-~]*) HTTP/1\.([0-9])\r\n"
    rb"(?:(?![Hh][Oo][Ss][Tt]:)[^\r\n]+\r\n){0,%d}"
    rb"[Hh][Oo][Ss][Tt]:[ \t]*([A-Za-z0-9._-]+)(?::[0-9]*)?[ \t]*\r\n" % (MOST_FIELDS - 1)
)
_LONGEST_HOST = 255
_HOST_BEGUN = re.compile(rb"[a-zA-Z0-9._-]*")
_AUTHORITY = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::[0-9]*)?")


class Stage(enum.IntEnum):
    """What of a request comes next; all before it is there."""

    REFUSED = 0
    """Nothing; this is not a request."""
    METHOD = 1
    TARGET = 2
    VERSION = 3
    FIELDS = 4
    DONE = 5
    """Nothing; the host is known, or will never be."""


@attrs.define(slots=False)
class Request:
    """How far a request has come; not changed any more once `parse_request` has given it.

    Attributes:
        stage: What comes next.
        method: The method, or its beginning.
        target: The request target, once it is there; one character a byte.
        version: The version, once its digits are there: ``1.0``, ``1.1``.
        host_begun: What has come of a name in the first Host field, while that is not complete.
        host: The host that is asked for, without port and brackets, once it is known; one character a byte.
    """

    stage: Stage = Stage.METHOD
    method: str = ""
    target: str = ""
    version: str = ""
    host: str | None = None
    host_begun: str = ""

    _at: int = 0
    """Where what comes next begins."""
    _searched: int = 0
    """Its end is not before this."""
    _fields: int = 0
    """How many fields came before it."""
    _begun: bytes = b""
    """The bytes so far, while the target is not there in full."""

    @property
    def target_begun(self) -> str:
        """What has come of the target. It is not kept, as it may be long, and come byte by byte."""
        return self.target or self._begun[self._at :].decode("latin-1")

    @property
    def path(self) -> str | None:
        """The path in the target, as sent and without the query; ``None`` if it has none."""
        if self.method == "CONNECT":
            return None
        target = self.target_begun
        if target.startswith("/"):
            return target.partition("?")[0]
        absolute = _ABSOLUTE_FORM.match(target)
        return absolute and (absolute[2] or "/")

    def read(self, data: bytes) -> None:
        """Go on with more bytes of the same stream, all of them from its beginning."""
        while step := _STEPS.get(self.stage):
            stage = self.stage
            step(self, data[: LINE_LIMIT if stage < Stage.FIELDS else HEAD_LIMIT])
            if self.stage is stage:
                break
        if self.stage < Stage.FIELDS and len(data) >= LINE_LIMIT:
            self.stage = Stage.REFUSED

    def _next(self, stage: Stage, at: int) -> None:
        self.stage = stage
        self._at = self._searched = at

    def _read_method(self, line: bytes) -> None:
        if found := _METHOD.match(line):
            self.method = found[1].decode()
            known = self.method in METHODS
            self._next(Stage.TARGET if known else Stage.REFUSED, found.end())
            return
        beginning = _METHOD_BEGINNING.fullmatch(line)
        if beginning:
            self.method = (beginning[1] or b"").decode()
        if not beginning or self.method not in _BEGINNINGS:
            self.stage = Stage.REFUSED

    def _read_target(self, line: bytes) -> None:
        end = _TARGET_END.search(line, self._searched)
        if end is None:
            self._searched, self._begun = len(line), line
            return
        self.target, self._begun = line[self._at : end.start()].decode("latin-1"), b""
        if self.target and end[0] == b" ":
            self._next(Stage.VERSION, end.end())
            self.host = _host_in_target(self.method, self.target)
        else:
            self.stage = Stage.REFUSED

    def _read_version(self, line: bytes) -> None:
        rest = line[self._at : self._at + len("HTTP/1.1\r\n")]
        found = _VERSION.match(rest)
        if found is None:
            if not _VERSION_BEGINNING.startswith(rest):
                self.stage = Stage.REFUSED
            return
        self.version = f"1.{found[1].decode()}"
        if found[2]:
            stage = Stage.FIELDS if self.host is None else Stage.DONE
            self._next(stage, self._at + found.end())

    def _read_fields(self, head: bytes) -> None:
        while (end := head.find(b"\n", self._searched)) >= 0:
            line = head[self._at : end].removesuffix(b"\r")
            self._fields += 1
            self._next(Stage.FIELDS if line else Stage.DONE, end + 1)
            name, colon, value = line.partition(b":")
            if colon and name.lower() == b"host":
                self.host = host_without_port(value.strip(b" \t").decode("latin-1"))
            if not line or self.host is not None or self._fields == MOST_FIELDS:
                self.stage = Stage.DONE
                return
        if head[self._at : self._at + 5].lower() == b"host:":
            begun = head[self._at + 5 : self._at + 5 + _LONGEST_HOST].lstrip(b" \t")
            self.host_begun = _HOST_BEGUN.match(begun)[0].decode()  # type: ignore[index]
        self._searched = len(head)
        if len(head) == HEAD_LIMIT:
            self.stage = Stage.DONE


_STEPS = {
    Stage.METHOD: Request._read_method,
    Stage.TARGET: Request._read_target,
    Stage.VERSION: Request._read_version,
    Stage.FIELDS: Request._read_fields,
}


def parse_request(data: bytes, earlier: Request | None) -> Request:
    """Read the head of a request out of the first bytes of a stream; for `Peeked.parsed`.

    It reads up to the host that is asked for: of an absolute or an authority-form target (RFC 9112, sections 3.2.2
    and 3.2.3), else of the first Host field. Up to two empty lines may come before the request (section 2.2).

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if earlier is None:
        usual = _USUAL.match(data, 0, LINE_LIMIT)
        # CONNECT has its host in the target, whatever that looks like.
        if usual and (method := usual[1].decode()) in METHODS and method != "CONNECT":
            target, version, host = usual[2].decode(), f"1.{usual[3].decode()}", usual[4].decode()
            return Request(Stage.DONE, method, target, version, host)
    elif earlier.stage not in _STEPS:
        return earlier
    request = copied(earlier) if earlier else Request()
    request.read(data)
    return request


def _host_in_target(method: str, target: str) -> str | None:
    if method == "CONNECT":
        return host_without_port(target)
    absolute = _ABSOLUTE_FORM.match(target)
    return host_without_port(absolute[1].rpartition("@")[2]) if absolute else None


def host_without_port(authority: str) -> str:
    """Give the host without the port, and an IPv6 address without its brackets (RFC 3986, section 3.2)."""
    found = _AUTHORITY.fullmatch(authority)
    return (found[1] or found[2] or "") if found else authority
