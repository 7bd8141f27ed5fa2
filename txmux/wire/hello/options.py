"""The options that matchers compare with a ClientHello, and the facts of one."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

import attrs

from txmux.classes import frozen
from txmux.errors import OptionError
from txmux.interfaces import MOST_DATAGRAMS, Datagrams, NameKey, Option, Verdict
from txmux.wire.client_hello import VERSIONS, HelloReader
from txmux.wire.facts import printable
from txmux.wire.globs import Globs, hosts, names, normal_host, option_globs

HELLO = 2048
"""Bytes of a ClientHello with a key share of ML-KEM, as browsers send it, and some room."""

SNI = Option(
    "sni",
    "globs of the requested server name; 'none' is a hello without one",
    "www.example.com,*.example.org",
    "host",
    needs=HELLO,
)
ECH = Option("ech", "yes or no: whether the hello has an encrypted one with it", "yes", needs=HELLO)

ALPN = "globs of application protocols, of which one has to be offered; 'none' is a hello that offers none"

_NONE = "none"


@frozen(weakref_slot=False)
class ServerNames:
    """The server names that match.

    Attributes:
        some: Patterns of names.
        none: Whether a hello without a name will do.
    """

    some: Globs | None
    none: bool

    def key(self, read: Callable[[Any], str | None]) -> NameKey | None:
        """Return the key of a predicate that wants these.

        Args:
            read: Gives the name; see `name_in`.
        """
        key = self.some.key(read) if self.some else NameKey(read)
        return attrs.evolve(key, exact=key.exact | {""}) if key and self.none else key

    def fit(self, reader: HelloReader) -> bool:
        """Return whether the name, or what is known of it, matches."""
        if reader.sni is None:
            return self.none or not reader.hello
        if not reader.sni and self.none:
            return True
        return self.some is not None and self.some.matches(reader.sni)


@frozen
class HelloOptions:
    """What a hello has to have; ``None`` is anything.

    Attributes:
        sni: The names that match.
        alpn: Application protocols, of which one is enough, and whether a hello that offers none will do.
        version: The highest version.
        ech: Whether there is an encrypted hello with it.
        ja4: Fingerprints.
    """

    sni: ServerNames | None = None
    alpn: tuple[Globs | None, bool] | None = None
    version: Globs | None = None
    ech: bool | None = None
    ja4: Globs | None = None

    def fit(self, reader: HelloReader) -> bool:
        """Return whether all that is known so far matches; at the end all is known."""
        if self.sni and not self.sni.fit(reader):
            return False
        if self.alpn and reader.alpn is not None:
            some, none = self.alpn
            if not (some and any(map(some.matches, reader.alpn)) if reader.alpn else none):
                return False
        if self.version and reader.version and not self.version.matches(reader.version):
            return False
        if self.ech is not None and reader.ech is not None and reader.ech is not self.ech:
            return False
        if not self.ja4 or not reader.hello:
            return True
        ja4 = reader.ja4()
        return ja4 is not None and self.ja4.matches(ja4)


def hello_options(
    options: Mapping[str, str], versions: Iterable[str] = tuple(VERSIONS.values())
) -> HelloOptions | None:
    """Read the options ``sni=``, ``alpn=``, ``version=``, ``ech=`` and ``ja4=``; ``None`` if none of them is there.

    Args:
        options: Those of a line.
        versions: The names of versions that there are.

    Raises:
        OptionError: One of them cannot be used.
    """
    if not options:
        return None
    if options.keys() == {"sni"}:  # as most of thousands
        return HelloOptions(server_names(options))
    return HelloOptions(
        sni=server_names(options),
        alpn=_globs_or_none(options, "alpn", names),
        version=option_globs(options, "version", partial(names, known=tuple(versions))),
        ech=_yes_or_no(options, "ech"),
        ja4=option_globs(options, "ja4"),
    )


def _yes_or_no(options: Mapping[str, str], name: str) -> bool | None:
    if name not in options:
        return None
    if options[name] not in {"yes", "no"}:
        raise OptionError(name, f"{options[name]!r} is neither 'yes' nor 'no'; write one of them")
    return options[name] == "yes"


def server_names(options: Mapping[str, str]) -> ServerNames | None:
    """Read the option ``sni=``; ``None`` if it is not there.

    Raises:
        OptionError: Its patterns cannot be used.
    """
    found = _globs_or_none(options, "sni", hosts)
    return None if found is None else ServerNames(*found)


def _globs_or_none(
    options: Mapping[str, str], name: str, read: Callable[[str], Globs]
) -> tuple[Globs | None, bool] | None:
    """Read an option of patterns, among which ``none`` may be: the patterns if there are any, and whether it is."""
    if name not in options:
        return None
    items = options[name].split(",")
    some = [item for item in items if item.strip() != _NONE]
    globs = option_globs({name: ",".join(some)}, name, read) if some else None
    return globs, len(some) < len(items)


def name_in(reader: HelloReader) -> str | None:
    """Return the server name for a `NameKey`: empty if there is none, ``None`` while it is not known."""
    if reader.sni is not None:
        return normal_host(reader.sni)
    return "" if reader.hello or reader.malformed else None


def hello_facts(reader: HelloReader) -> dict[str, str]:
    """Return the facts of a hello, as far as it has arrived."""
    alpn, version, ja4 = reader.alpn, reader.version, reader.ja4()
    facts = {"sni": printable(reader.sni)} if reader.sni else {}
    if alpn:
        facts["alpn"] = printable(",".join(alpn))
    if version:
        facts["tls"] = version
    if ja4:
        facts["ja4"] = ja4
    if reader.malformed and reader.unread:
        facts["hello_unread"] = reader.unread
    return facts


class HelloReading(Protocol):
    """How far an opening with a ClientHello has come."""

    @property
    def refused(self) -> bool:
        """Whether it is none, whatever follows."""

    @property
    def hello(self) -> HelloReader:
        """The ClientHello, as far as it has come."""


def server_name(opening: HelloReading) -> str | None:
    """Return the server name for a `NameKey`: empty if there will be none, ``None`` while it is not known."""
    name = name_in(opening.hello)
    return "" if name is None and opening.refused else name


def verdict_on(opening: HelloReading, options: HelloOptions | None, flow: Datagrams) -> Verdict:
    """Return whether the hello matches, once it is whole, or can no longer match.

    Args:
        opening: How far it has come.
        options: What it has to have; without it, a hello is not enough, and more datagrams are waited for.
        flow: The datagrams until now.
    """
    if opening.refused:
        return Verdict.NO
    if options is not None:
        if opening.hello.malformed or not options.fit(opening.hello):
            return Verdict.NO
        if opening.hello.hello:
            return Verdict.MATCH
    return Verdict.NEED_MORE if len(flow.datagrams) < MOST_DATAGRAMS else Verdict.NO
