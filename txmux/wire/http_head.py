"""The head of the first HTTP/1 request of a stream and its field ``Upgrade``, read as far as they have come."""

import enum
import itertools
import re
from collections.abc import Mapping

import attrs

from txmux.classes import define
from txmux.wire.cursor import copied

__all__ = [
    "HEAD_LIMIT", "LINE_LIMIT", "METHODS", "MOST_FIELDS", "UNREAD", "Request", "Stage",
    "UpgradeRequest", "fields_of", "host_without_port", "parse_request", "parse_upgrade",
]  # fmt: skip

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
"""The most fields before the requested one; servers allow about a hundred."""

_EMPTY_LINES = re.compile(rb"[\r\n]*")
_METHOD_END = re.compile(rb"[^A-Z_-]")
_LONGEST_METHOD = 64
"""Characters that are kept of it."""
_BLANKS = re.compile(rb"[ \t]*")
_TARGET_END = re.compile(rb"[\x00-\x20\x7f]")
_VERSION = re.compile(rb"[ \t]*(HTTP/[0-9]|ICE/1)(\.[0-9]{1,3}) *(?:\r?(\n)|\r?\Z)")
_VERSION_BEGINNING = re.compile(
    rb"[ \t]*(?:H(?:T(?:T(?:P(?:/(?:[0-9]\.?)?)?)?)?)?|I(?:C(?:E(?:/(?:1\.?)?)?)?)?)?"
)
_FOR_ANY_METHOD = re.compile(r"/|[A-Za-z][A-Za-z0-9+.-]*://")
"""How targets begin with a method that is not known, as nginx takes them; other protocols begin with such words, too, and HTTP/2 with ``PRI *``."""
_SSH = "SSH-"
_NO_FIELDS = "0.9"
_SOURCE, _ICE = "SOURCE", b"I"
"""The method of Icecast's sources, and what they may write for ``HTTP/1.`` (``http_connect`` of libshout)."""
_WEB = re.compile(rb"(?i)https?://")
_ABSOLUTE_FORM = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)([^?#]*)")
# What nearly all clients send, in one packet; anything else is read step by step.
_USUAL = re.compile(
    rb"([A-Z]+) (/[!-~]*) HTTP/1\.([0-9])\r\n"
    rb"(?:(?![Hh][Oo][Ss][Tt]:)[^\r\n]+\r\n){0,%d}"
    rb"[Hh][Oo][Ss][Tt]:[ \t]*([A-Za-z0-9._-]+)(?::[0-9]*)?[ \t]*\r\n" % (MOST_FIELDS - 1)
)
# Whole lines before the one that names the host, or the empty one.
_OTHERS = re.compile(rb"(?:(?!\r?\n|[Hh][Oo][Ss][Tt]:)[^\n]*\n){1,%d}" % MOST_FIELDS)
_LONGEST_HOST = 255
UNREAD = 256
"""The most bytes of a line that are searched for its end again and again, which is faster than to note how far they were."""
_HOST_BEGUN = re.compile(rb"[a-zA-Z0-9._-]*")
_LITERAL = re.compile(r"\[([^\]]*)\]")
_BLANK = (b" ", b"\t")


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


_TARGET, _FIELDS = Stage.TARGET, Stage.FIELDS


@define(slots=False)
class Request:
    """The state of a request; frozen once `parse_request` has returned it.

    Attributes:
        stage: What comes next.
        method: The method, or its beginning.
        target: The request target, once it is there; one character a byte.
        version: The version, once its digits are there: ``1.0``, ``1.1``.
        host_begun: What has come of a name in the first Host field, while that is not complete.
        host: The requested host, without port and brackets, once it is known; one character a byte.
        compared: What it was compared with, by id, and need not be again. It only saves time.
    """

    stage: Stage = Stage.METHOD
    method: str = ""
    target: str = ""
    version: str = ""
    host: str | None = None
    host_begun: str = ""
    compared: set[int] = attrs.field(factory=set, init=False, eq=False)

    _at: int = 0
    """The offset of the next element."""
    _searched: int = attrs.field(default=0, eq=False)
    """Its end is not before this."""
    _unread_until: int = attrs.field(default=0, eq=False)
    """With fewer bytes than this, and no end among those that were not searched, nothing is new."""
    _fields: int = 0
    """How many fields came before it."""
    _is_folded: bool = False
    """It is the line behind an empty Host."""

    def path_begun(self, data: bytes, most: int) -> tuple[str, bool]:
        """Return the received part of a target that begins with a path, while it is incomplete.

        It is not stored, as it may be long, and arrive byte by byte.

        Args:
            data: The bytes that `parse_request` was given.
            most: The most characters to return of the path, unless it is there in full.

        Returns:
            The path, or nothing if the target has none that begins with a slash; and whether a query follows it.
        """
        if self.stage is not _TARGET or not data.startswith(b"/", self._at):
            return "", False
        end = data.find(b"?", self._at)
        path = data[self._at : end] if end >= 0 else data[self._at : self._at + most]
        return path.decode("latin-1"), end >= 0

    @property
    def path(self) -> str | None:
        """The path in the target, as sent and without the query; ``None`` if it has none."""
        if self.method == "CONNECT":
            return None
        if self.target.startswith("/"):
            return self.target.partition("?")[0]
        absolute = _ABSOLUTE_FORM.match(self.target)
        return absolute and (absolute[2] or "/")

    def read(self, data: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning."""
        stage = None
        while self.stage is not stage and self.stage in _STEPS:
            stage = self.stage
            step, limit = _STEPS[stage]
            step(self, data[:limit])
        if len(data) >= LINE_LIMIT and self.stage < Stage.FIELDS:
            self.stage = Stage.REFUSED

    def _next(self, stage: Stage, at: int) -> None:
        self.stage = stage
        self._at = self._searched = at
        self._unread_until = 0

    def _read_method(self, line: bytes) -> None:
        if not self.method:
            self._at = self._searched = _EMPTY_LINES.match(line, self._searched).end()  # type: ignore[union-attr]
        end = _METHOD_END.search(line, self._searched)
        self._searched = len(line)
        self.method = line[self._at : end.start() if end else None][:_LONGEST_METHOD].decode()
        if self.method.startswith(_SSH):
            self.stage = Stage.REFUSED
        elif end is not None:
            is_one = self.method and end[0] in b" \t"
            self._next(Stage.TARGET if is_one else Stage.REFUSED, end.end())

    def _read_target(self, line: bytes) -> None:
        if self._searched == self._at:
            self._at = self._searched = _BLANKS.match(line, self._at).end()  # type: ignore[union-attr]
        end = _TARGET_END.search(line, self._searched)
        if end is None:
            self._searched = len(line)
            self._unread_until = min(len(line) + UNREAD, LINE_LIMIT)
            return
        self.target = line[self._at : end.start()].decode("latin-1")
        if self.method not in METHODS and not _FOR_ANY_METHOD.match(self.target):
            self.stage = Stage.REFUSED
        elif self.target and end[0] in b" \t":
            self._next(Stage.VERSION, end.end())
        elif end[0] in b"\r\n" and _WEB.match(line, self._at):
            # HTTP/0.9, which nginx serves by the host in it. With a path alone, many protocols begin like that.
            self.version = _NO_FIELDS
            self._next(Stage.DONE, end.end())
        else:
            self.stage = Stage.REFUSED
        self.host = _host_in_target(self.method, self.target)

    def _read_version(self, line: bytes) -> None:
        match = _VERSION.match(line, self._at)
        begun = match or _VERSION_BEGINNING.fullmatch(line, self._at)
        if begun is None or (begun[0].lstrip(b" \t")[:1] == _ICE and self.method != _SOURCE):
            self.stage = Stage.REFUSED
        elif match is not None:
            self.version = (match[1][-1:] + match[2]).decode()
            if match[3]:
                self._next(Stage.FIELDS if self.host is None else Stage.DONE, match.end())

    def _read_fields(self, head: bytes) -> None:
        while (end := head.find(b"\n", self._searched)) >= 0:
            others = None if self._is_folded else _OTHERS.match(head, self._at)
            if others is None:
                if self._read_host(head, end):
                    return
                continue
            self._fields += head.count(b"\n", self._at, others.end())
            self._next(Stage.FIELDS, others.end())
            if self._fields >= MOST_FIELDS:
                self._fields = MOST_FIELDS
                self._next(Stage.DONE, 0)
                return
        name = head[self._at : self._at + 5].lower()
        if name == b"host:":
            begun = head[self._at + 5 : self._at + 5 + _LONGEST_HOST].lstrip(b" \t")
            self.host_begun = _HOST_BEGUN.match(begun)[0].decode()  # type: ignore[index]
        self._searched = len(head)
        self._unread_until = min(len(head) + UNREAD, HEAD_LIMIT)
        if len(name) < 5:
            self._unread_until = min(self._at + 5, HEAD_LIMIT)
        elif name == b"host:" and len(head) < self._at + 5 + _LONGEST_HOST:
            self._unread_until = 0
        if len(head) == HEAD_LIMIT:
            self.stage = Stage.DONE

    def _read_host(self, head: bytes, end: int) -> bool:
        """Read the line of the host, or the empty one; returns false if the value is in the next line."""
        line = head[self._at : end]
        _, colon, value = (b"", b":", line) if self._is_folded else line.partition(b":")
        value = value.strip(b" \t\r")
        if colon and not value:
            # HAProxy still reads a value that is folded (RFC 9112, section 5.2).
            next_byte = head[end + 1 : end + 2]
            if next_byte in _BLANK:
                self._is_folded = True
                self._next(Stage.FIELDS, end + 1)
                return False
            if not next_byte and len(head) < HEAD_LIMIT:
                self._unread_until = 0
                return True
        self._next(Stage.DONE, end + 1)
        if colon:
            self.host = host_without_port(value.decode("latin-1"))
        return True


_STEPS = {
    Stage.METHOD: (Request._read_method, LINE_LIMIT),
    Stage.TARGET: (Request._read_target, LINE_LIMIT),
    Stage.VERSION: (Request._read_version, LINE_LIMIT),
    Stage.FIELDS: (Request._read_fields, HEAD_LIMIT),
}


def parse_request(data: bytes, earlier: Request | None) -> Request:
    """Read the head of a request out of the first bytes of a stream; for `Peeked.parsed`.

    It reads up to the requested host: of an absolute or an authority-form target (RFC 9112, sections 3.2.2
    and 3.2.3), else of the first Host field. It reads as leniently as servers do (nginx, HAProxy):
    a request that one of them takes for another host than this does would pass by the route of its host.

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
        request = Request()
    elif len(data) < earlier._unread_until and (
        data.find(b"\n", earlier._searched) < 0
        if earlier.stage is _FIELDS
        else not _TARGET_END.search(data, earlier._searched)
    ):
        return earlier  # a client may send byte by byte
    elif earlier.stage not in _STEPS:
        return earlier
    else:
        request = copied(earlier)
        request.compared = set()
    request.read(data)
    return request


def _host_in_target(method: str, target: str) -> str | None:
    if method == "CONNECT":
        return host_without_port(target)
    absolute = _ABSOLUTE_FORM.match(target)
    return host_without_port(absolute[1].rpartition("@")[2]) if absolute else None


def host_without_port(authority: str) -> str:
    """Return the host without the port, and an IPv6 address without its brackets (RFC 3986, section 3.2)."""
    literal = _LITERAL.match(authority)
    if literal is None:
        return authority.partition(":")[0]
    return literal[1] if ":" in literal[1] else literal[0]


_REQUEST_LINE = re.compile(rb"[\r\n]*[^\n]*\n")
_HEAD_END = re.compile(rb"\n\r?\n")


def fields_of(data: bytes) -> tuple[Mapping[bytes, bytes], int] | None:
    """Read the fields of a request, the last one of each name, and where its head ends; ``None`` while that is not there.

    Args:
        data: The first bytes of a stream; see `parse_request` for whether they are a request.
    """
    line = _REQUEST_LINE.match(data)
    end = line and _HEAD_END.search(data, line.end() - 1)
    if line is None or end is None:
        return None
    lines = data[line.end() : max(line.end(), end.start())].split(b"\n")
    return dict(map(_field, lines)), end.end()


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    return name.rstrip(b" \t").lower(), value.strip(b" \t\r")


_MOST_PROTOCOLS = 16
"""More are not looked at; clients offer one or two."""


@define(slots=False)
class UpgradeRequest:
    """Its state; frozen once `parse_upgrade` has returned it.

    Attributes:
        request: The request, as far as its line has come; what depends on its fields may be missing.
        protocols: The names of the protocols that are offered, in lower case and without their versions.
        done: Whether these are all of them.
        compared: What they were compared with, by id, without success. It only saves time.
    """

    request: Request = attrs.field(eq=False)
    protocols: tuple[str, ...] = ()
    done: bool = False
    compared: set[int] = attrs.field(factory=set, init=False, eq=False)

    _at: int = 0
    """Where the line begins that comes next."""
    _searched: int = attrs.field(default=0, eq=False)
    """Its end is not before this."""
    _unread_until: int = attrs.field(default=0, eq=False)
    """With fewer bytes than this, and no end among those that were not searched, nothing is new."""
    _fields: int = 0
    """How many fields came before it."""

    def read(self, head: bytes) -> None:
        """Continue with more bytes of the same stream, all of them from its beginning, once the request's line is there."""
        if self.request.version == _NO_FIELDS:
            self.done = True
            return
        if not self._at:
            self._at = self._searched = _REQUEST_LINE.match(head).end()  # type: ignore[union-attr]
        while not self.done and (end := head.find(b"\n", self._searched)) >= 0:
            self._read_field(head[self._at : end].removesuffix(b"\r"))
            self._at = self._searched = end + 1
        self._searched = len(head)
        self._unread_until = min(len(head) + UNREAD, HEAD_LIMIT)
        if len(head) == HEAD_LIMIT:
            self.done = True

    def _read_field(self, line: bytes) -> None:
        self._fields += 1
        self.done = not line or self._fields == MOST_FIELDS
        name, value = _field(line)
        if name == b"upgrade":
            items = value.decode("latin-1").split(",", _MOST_PROTOCOLS)
            names = (item.partition("/")[0].strip(" \t").lower() for item in items)
            protocols = itertools.chain(self.protocols, filter(None, names))
            self.protocols = tuple(itertools.islice(protocols, _MOST_PROTOCOLS))


def parse_upgrade(data: bytes, earlier: UpgradeRequest | None) -> UpgradeRequest:
    """Read the protocols that a client offers to change to (RFC 9110, section 7.8); for `Peeked.parsed`.

    Args:
        data: The bytes so far.
        earlier: The answer for fewer bytes of the same stream.
    """
    if (
        earlier is not None
        and len(data) < earlier._unread_until
        and data.find(b"\n", earlier._searched) < 0
    ):
        return earlier  # a client may send byte by byte
    if earlier is None or earlier.request.stage < Stage.FIELDS:
        request = parse_request(data, earlier.request if earlier else None)
        if earlier is not None and request is earlier.request:
            return earlier
        upgrade = UpgradeRequest(request)
    elif earlier.done:
        return earlier
    else:
        upgrade = copied(earlier)
        upgrade.compared = set()
    if upgrade.request.stage >= Stage.FIELDS:
        upgrade.read(data[:HEAD_LIMIT])
    return upgrade
