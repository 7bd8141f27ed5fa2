"""The matcher for Finger."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FingerMatcher"]

_LONGEST_LINE = 512
_VERBOSE = b"/W"
_LINE = re.compile(rb"(?:/W *)?([!-?A-~]*)(?:@[!-~]*)?(\r\n|\r?\Z)")
_USER = re.compile("[!-.0-?A-~][!-?A-~]*")


@attrs.frozen
class _FingerPredicate:
    users: frozenset[str] | None
    longest: int = _LONGEST_LINE

    def __call__(self, peeked: Peeked, /) -> Verdict:
        data = peeked.data[:_LONGEST_LINE]
        line = _LINE.match(data)
        if line is None:
            return Verdict.NO
        if line[2] == b"\r\n":
            return Verdict.MATCH if self._fits(line[1].decode()) else Verdict.NO
        if len(data) == _LONGEST_LINE:
            return Verdict.NO
        if _VERBOSE.startswith(data):
            return Verdict.NEED_MORE
        # After the name comes "@" or CR, so what has come is the whole of it or its beginning.
        complete = line.end(1) < len(data)
        could_fit = self._fits if complete else self._could_fit
        return Verdict.NEED_MORE if could_fit(line[1].decode()) else Verdict.NO

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        line = _LINE.match(peeked.data[:_LONGEST_LINE])
        if line is None or line[2] != b"\r\n" or not line[1]:
            return {}
        return {"user": line[1].decode()[:255]}

    def _fits(self, user: str) -> bool:
        return self.users is None or user in self.users

    def _could_fit(self, beginning: str) -> bool:
        return self.users is None or any(user.startswith(beginning) for user in self.users)


@implementer(IProtocolMatcher)
class FingerMatcher:
    """Matches the query of a Finger client (RFC 1288, section 2.3).

    That is one line that ends with CR LF: ``/W`` and blanks or nothing, the name of a user or nothing, and hosts after
    ``@`` or nothing. RFC 1288 has no limit for it; here it has at most 512 bytes.
    """

    name = "finger"
    summary = "Finger, by the client's one line"
    options = (Option("user", "the names of users who may be asked about", "alice,bob"),)

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate.

        Raises:
            OptionError: ``user=`` has something that is not a name.
        """
        if "user" not in options:
            return _FingerPredicate(None)
        users = options["user"].split(",")
        for user in users:
            if not _USER.fullmatch(user):
                raise OptionError("user", f"{user!r} is not a name; write names such as alice,bob")
        return _FingerPredicate(frozenset(users))
