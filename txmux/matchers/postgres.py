"""The matcher for PostgreSQL."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from zope.interface import implementer

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import Exchange, IProtocolMatcher, NameKey, Option, Peeked, Predicate, Verdict
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, option_globs
from txmux.wire.hello.options import HELLO, ServerNames, hello_facts, name_in, server_names
from txmux.wire.postgres_startup import (
    LONGEST_BEGINNING,
    LONGEST_PACKET,
    LONGEST_TLS_START,
    Startup,
    parse_startup,
    parse_tls_start,
)


@frozen
class _PostgresPredicate:
    user: Globs | None
    database: Globs | None
    application: Globs | None
    first_bytes: frozenset[int] = frozenset({0})
    cancels_apart: bool = True

    @property
    def longest(self) -> int:
        return LONGEST_PACKET if self._has_options else LONGEST_BEGINNING

    @property
    def _has_options(self) -> bool:
        return any((self.user, self.database, self.application))

    @property
    def key(self) -> NameKey | None:
        options = self.database, self.user, self.application
        pairs = zip(options, _NAME_READERS, strict=True)
        return next(filter(None, (globs.key(read) for globs, read in pairs if globs)), None)

    def __call__(self, peeked: Peeked, /) -> Verdict:
        startup = peeked.parsed(parse_startup)
        if not self._has_options:
            if startup.recognised:
                return Verdict.MATCH
            return Verdict.NO if startup.malformed or startup.unusual else Verdict.NEED_MORE
        if startup.malformed or startup.is_request:
            return Verdict.NO
        if not startup.complete:  # a later value of the same name would count
            return Verdict.NEED_MORE
        return Verdict.MATCH if self._fits(startup) else Verdict.NO

    def _fits(self, startup: Startup) -> bool:
        pairs = (
            (self.user, startup.user),
            (self.database, startup.database),
            (self.application, startup.application),
        )
        return all(
            value is not None and globs.matches(_text(value)) for globs, value in pairs if globs
        )

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        startup = peeked.parsed(parse_startup)
        facts = {
            "user": startup.user,
            "database": startup.database,
            "application": startup.application,
        }
        return {name: printable(value.decode("latin-1")) for name, value in facts.items() if value}


@frozen
class _PostgresTlsPredicate:
    sni: ServerNames
    longest: int = LONGEST_TLS_START
    reads_hello: bool = True
    cancels_apart: bool = True
    first_bytes: frozenset[int] = frozenset({0})

    @property
    def key(self) -> NameKey | None:
        return self.sni.key(_server_name)

    def __call__(self, peeked: Peeked, /) -> Verdict:
        start = peeked.parsed(parse_tls_start)
        reader = start.reader
        if start.malformed or (reader is not None and not self.sni.fit(reader)):
            return Verdict.NO
        return Verdict.MATCH if reader is not None and reader.hello else Verdict.NEED_MORE

    @property
    def exchanges(self) -> Callable[[Peeked], Sequence[Exchange]]:
        return _requests

    def learnt(self, peeked: Peeked, /) -> dict[str, str]:
        reader = peeked.parsed(parse_tls_start).reader
        return {} if reader is None else hello_facts(reader)


def _read_name(field: str, peeked: Peeked) -> str | None:
    startup = peeked.parsed(parse_startup)
    if startup.malformed or startup.is_request:
        return ""
    return _text(getattr(startup, field) or b"") if startup.complete else None


_NAME_READERS = tuple(partial(_read_name, field) for field in ("database", "user", "application"))


def _requests(peeked: Peeked) -> Sequence[Exchange]:
    return peeked.parsed(parse_tls_start).exchanges


def _server_name(peeked: Peeked) -> str | None:
    start = peeked.parsed(parse_tls_start)
    if start.reader is not None:
        return name_in(start.reader)
    return "" if start.malformed else None


@implementer(IProtocolMatcher)
class PostgresMatcher:
    """Matches the first packet of a PostgreSQL client ("PostgreSQL documentation", "Message Formats").

    SSLRequest, GSSENCRequest, CancelRequest with a key of 4 to 256 bytes, or StartupMessage of protocol 3 with any
    minor version, which is known by the name of its first parameter. With options it has to be a StartupMessage,
    which is read to its end: the requests tell nothing about user, database and application.

    With ``sni=`` it has to be an SSLRequest, to which txmux says yes, and then the ClientHello. A GSSENCRequest before
    it is refused, as by a server without Kerberos.
    """

    name = "postgres"
    summary = "PostgreSQL, by what the client asks for in its first packet"
    options = (
        Option("user", "globs of the user name", "alice,app_*"),
        Option("database", "globs of the database; without one it is the user name", "shop,shop_*"),
        Option("application", "globs of the application_name", "psql,pgAdmin*"),
        Option(
            "sni",
            "globs of the server name in the TLS that the client asks for; 'none' is no name",
            "db.example.com,*.db.example.org",
            "host",
            needs=HELLO,
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        sni = server_names(options)
        if sni is not None:
            if len(options) > 1:
                others = ", ".join(f"{name}=" for name in options if name != "sni")
                message = f"cannot go with {others}, which TLS hides; write one or the other"
                raise OptionError("sni", message)
            return _PostgresTlsPredicate(sni)
        return _PostgresPredicate(
            user=option_globs(options, "user"),
            database=option_globs(options, "database"),
            application=option_globs(options, "application"),
        )


postgres = PostgresMatcher()


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
