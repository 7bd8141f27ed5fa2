"""The matcher for SSH."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.matchers._bytes import begins_with, printable
from txmux.matchers._globs import Globs, option_globs

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SshMatcher"]

_MAGIC = b"SSH-"
_LONGEST_LINE = 255
_COMPLETE = re.compile(rb"SSH-[0-9.]+-([!-~]+)[ \r\n]")
_BEGINNING = re.compile(rb"SSH-(?:[0-9.]+(?:-([!-~]*))?)?")


@attrs.frozen
class _SshPredicate:
    software: Globs | None
    first_bytes: frozenset[int] = frozenset(_MAGIC[:1])

    @property
    def longest(self) -> int:
        return len(_MAGIC) if self.software is None else _LONGEST_LINE

    def __call__(self, peeked: Peeked, /) -> Verdict:
        magic = begins_with(peeked.data, _MAGIC)
        if magic is not Verdict.MATCH or self.software is None:
            return magic
        line = peeked.data[:_LONGEST_LINE]
        if complete := _COMPLETE.match(line):
            return Verdict.MATCH if self.software.matches(complete[1].decode()) else Verdict.NO
        beginning = _BEGINNING.fullmatch(line)
        if beginning is None or len(line) == _LONGEST_LINE:
            return Verdict.NO
        so_far = (beginning[1] or b"").decode()
        return Verdict.NEED_MORE if self.software.could_match_prefix(so_far) else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        complete = _COMPLETE.match(peeked.data[:_LONGEST_LINE])
        return {"software": printable(complete[1].decode())} if complete else {}


@implementer(IProtocolMatcher)
class SshMatcher:
    """Matches the identification string of an SSH client (RFC 4253, section 4.2).

    That is ``SSH-protoversion-softwareversion SP comments CR LF``, at most 255 bytes. Without options its first
    four bytes are enough.
    """

    name = "ssh"
    summary = "SSH, by the identification string of the client"
    options = (Option("software", "globs of the client's software version", "OpenSSH_*,libssh-*"),)

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate.

        Raises:
            OptionError: The patterns of ``software=`` cannot be used.
        """
        return _SshPredicate(option_globs(options, "software"))
