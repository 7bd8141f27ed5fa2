"""The matcher for Git's own protocol."""

import re
from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import define, frozen
from txmux.interfaces import IProtocolMatcher, NameKey, Option, Peeked, Predicate, Verdict
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, normal_host, option_globs
from txmux.wire.http_head import host_without_port
from txmux.wire.predicates import begins_with

_COMMANDS = (b"git-upload-pack ", b"git-receive-pack ", b"git-upload-archive ")
_SHORTEST = 4 + min(map(len, _COMMANDS)) + 1
_LONGEST = 0x1FFF
_HEX = re.compile(rb"[0-9A-Fa-f]{0,4}")
_HOST = b"host="


@define
class _GitRequest:
    """The request, as far as it has come; `host` is without its port, and empty if the request names none."""

    verdict: Verdict = Verdict.NEED_MORE
    path: str = ""
    path_known: bool = False
    host: str | None = None

    def read(self, data: bytes) -> None:
        digits = data[:4]
        least = int(digits.ljust(4, b"0"), 16) if _HEX.fullmatch(digits) else _LONGEST + 1
        if least > _LONGEST or int(digits.ljust(4, b"f"), 16) < _SHORTEST:
            self.verdict = Verdict.NO
            return
        rest = data[4:least]
        verdicts = {begins_with(rest, command): command for command in _COMMANDS}
        if Verdict.MATCH in verdicts:
            self.verdict = Verdict.MATCH
            whole = len(data) >= least
            self._read_parameters(rest[len(verdicts[Verdict.MATCH]) :], whole=whole)
        elif Verdict.NEED_MORE not in verdicts or (len(digits) == 4 and len(data) >= least):
            self.verdict = Verdict.NO

    def _read_parameters(self, text: bytes, *, whole: bool) -> None:
        path, nul, rest = text.partition(b"\0")
        self.path_known = bool(nul) or whole
        if self.path_known:
            self.path = path.removesuffix(b"\n").decode("utf-8", "surrogateescape")
        else:
            # A character may be cut in two; its rest does not matter yet.
            self.path = path.decode("utf-8", "ignore")
        host, nul, _ = rest.partition(b"\0")
        if host.startswith(_HOST) and (nul or whole):
            self.host = host_without_port(host.removeprefix(_HOST).decode("latin-1")).lower()
        elif whole or (rest and begins_with(host, _HOST) is Verdict.NO) or (nul and not host):
            self.host = ""


@frozen
class _GitPredicate:
    host: Globs | None
    path: Globs | None
    key: NameKey | None
    longest: int
    first_bytes: frozenset[int] = frozenset(b"01")

    def __call__(self, peeked: Peeked, /) -> Verdict:
        request = peeked.parsed(_parse)
        if request.verdict is not Verdict.MATCH:
            return request.verdict
        if self.path is not None:
            fits = self.path.matches if request.path_known else self.path.could_match_prefix
            if not fits(request.path):
                return Verdict.NO
        host = request.host
        if self.host is not None and host is not None and not (host and self.host.matches(host)):
            return Verdict.NO
        waiting = (self.path is not None and not request.path_known) or (
            self.host is not None and request.host is None
        )
        return Verdict.NEED_MORE if waiting else Verdict.MATCH

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        request = peeked.parsed(_parse)
        facts = {"host": request.host, "path": request.path if request.path_known else ""}
        return {name: printable(value) for name, value in facts.items() if value}


def _host(peeked: Peeked) -> str | None:
    request = peeked.parsed(_parse)
    if request.verdict is Verdict.NO:
        return ""
    return None if request.host is None else normal_host(request.host)


@implementer(IProtocolMatcher)
class GitMatcher:
    """Matches the request of a Git client for a ``git://`` URL (gitprotocol-pack(5), "Git Transport").

    That is a pkt-line, its length in four hex digits (gitprotocol-common(5)), with a command, a blank, the path of
    the repository, NUL, and ``host=`` with the host and maybe its port and NUL; more parameters may follow. Without
    options the command is enough. A request has at most 8191 bytes here.
    """

    name = "git"
    summary = "Git clients, by the request for a git:// URL"
    options = (
        Option(
            "host", "globs of the host that is asked for, without port", "git.example.com", "host"
        ),
        Option("path", "globs of the path of the repository, as sent", "/team/*,/project.git"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        host = option_globs(options, "host", hosts)
        return _GitPredicate(
            host=host,
            path=option_globs(options, "path"),
            key=host.key(_host) if host else None,
            longest=_LONGEST if options else 4 + max(map(len, _COMMANDS)),
        )


git = GitMatcher()


def _parse(data: bytes, earlier: _GitRequest | None) -> _GitRequest:
    if earlier is not None and (earlier.verdict is Verdict.NO or earlier.host is not None):
        return earlier
    request = _GitRequest()
    request.read(data)
    return request
