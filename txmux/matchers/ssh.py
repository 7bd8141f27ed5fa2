"""The matcher for SSH."""

import re
from collections.abc import Mapping

from zope.interface import implementer

from txmux.classes import frozen
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, option_globs
from txmux.wire.predicates import begins_with

_MAGIC = b"SSH-"
_LONGEST_LINE = 255
_COMPLETE = re.compile(rb"SSH-[0-9.]+-([!-~]+)[ \r\n]")
_BEGINNING = re.compile(rb"SSH-(?:[0-9.]+(?:-([!-~]*))?)?")


@frozen
class _Identification:
    broken: bool = False
    complete: bool = False
    software: str = ""


def _parse(data: bytes, earlier: _Identification | None) -> _Identification:
    if earlier and (earlier.broken or earlier.complete):
        return earlier
    line = data[:_LONGEST_LINE]
    if match := _COMPLETE.match(line):
        return _Identification(complete=True, software=match[1].decode())
    beginning = _BEGINNING.fullmatch(line)
    if beginning:
        broken = len(line) == _LONGEST_LINE
        return _Identification(broken=broken, software=(beginning[1] or b"").decode())
    return _Identification(broken=begins_with(line, _MAGIC) is not Verdict.NEED_MORE)


@frozen
class _SshPredicate:
    software: Globs | None
    first_bytes: frozenset[int] = frozenset(_MAGIC[:1])

    @property
    def longest(self) -> int:
        return len(_MAGIC) if self.software is None else _LONGEST_LINE

    def __call__(self, peeked: Peeked, /) -> Verdict:
        if self.software is None:
            return begins_with(peeked.data, _MAGIC)
        banner = peeked.parsed(_parse)
        if banner.broken:
            return Verdict.NO
        if banner.complete:
            return Verdict.MATCH if self.software.matches(banner.software) else Verdict.NO
        fits = self.software.could_match_prefix(banner.software)
        return Verdict.NEED_MORE if fits else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        banner = peeked.parsed(_parse)
        return {"software": printable(banner.software)} if banner.complete else {}


@implementer(IProtocolMatcher)
class SshMatcher:
    """Matches the identification string of an SSH client (RFC 4253, section 4.2).

    That is ``SSH-protoversion-softwareversion SP comments CR LF``, at most 255 bytes. Without options its first
    four bytes are enough.
    """

    name = "ssh"
    summary = "SSH, by the identification string of the client"
    options = (
        Option(
            "software", "globs of the client's software version", "OpenSSH_*,libssh-*", "software"
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        return _SshPredicate(option_globs(options, "software"))


ssh = SshMatcher()
