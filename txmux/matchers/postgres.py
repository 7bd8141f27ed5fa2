"""The matcher for PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
from zope.interface import implementer

from txmux.interfaces import IProtocolMatcher, Option, Peeked, Predicate, Verdict
from txmux.matchers._bytes import printable
from txmux.matchers._globs import Globs, option_globs
from txmux.matchers._postgres_startup import (
    LONGEST_BEGINNING,
    LONGEST_PACKET,
    Startup,
    parse_startup,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PostgresMatcher"]


@attrs.frozen
class _PostgresPredicate:
    user: Globs | None
    database: Globs | None
    application: Globs | None
    first_bytes: frozenset[int] = frozenset({0})

    @property
    def longest(self) -> int:
        return LONGEST_PACKET if self._has_options else LONGEST_BEGINNING

    @property
    def _has_options(self) -> bool:
        return any((self.user, self.database, self.application))

    def __call__(self, peeked: Peeked, /) -> Verdict:
        startup = peeked.parsed(parse_startup)
        if not self._has_options:
            if startup.recognised:
                return Verdict.MATCH
            return Verdict.NO if startup.malformed else Verdict.NEED_MORE
        if startup.malformed or startup.is_request or not self._fits(startup):
            return Verdict.NO
        return Verdict.MATCH if startup.complete else Verdict.NEED_MORE

    def _fits(self, startup: Startup) -> bool:
        """Tell whether all that is known so far is what is wanted; at the end all is known."""
        for globs, value in (
            (self.user, startup.user),
            (self.database, startup.database),
            (self.application, startup.application),
        ):
            if globs and value is None and startup.complete:
                return False
            if globs and value is not None and not globs.matches(_text(value)):
                return False
        return True

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        startup = peeked.parsed(parse_startup)
        facts = {
            "user": startup.user,
            "database": startup.database,
            "application": startup.application,
        }
        return {name: printable(value.decode("latin-1")) for name, value in facts.items() if value}


@implementer(IProtocolMatcher)
class PostgresMatcher:
    """Matches the first packet of a PostgreSQL client ("PostgreSQL documentation", "Message Formats").

    SSLRequest, GSSENCRequest, CancelRequest with a key of 4 to 256 bytes, or StartupMessage of protocol 3 with any
    minor version, which is known by the name of its first parameter. With options it has to be a StartupMessage,
    which is read to its end: the requests tell nothing about user, database and application.
    """

    name = "postgres"
    summary = "PostgreSQL, by what the client asks for in its first packet"
    options = (
        Option("user", "globs of the user name", "alice,app_*"),
        Option("database", "globs of the database; without one it is the user name", "shop,shop_*"),
        Option("application", "globs of the application_name", "psql,pgAdmin*"),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        """Make the predicate.

        Raises:
            OptionError: The patterns of an option cannot be used.
        """
        return _PostgresPredicate(
            user=option_globs(options, "user"),
            database=option_globs(options, "database"),
            application=option_globs(options, "application"),
        )


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
