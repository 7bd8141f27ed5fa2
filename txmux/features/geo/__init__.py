"""Where clients are: ``geo:country=FR`` and ``as:AS64500``, by databases in MaxMind's format."""

import importlib.util
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs

from txmux.classes import define
from txmux.errors import how_to_install, listed
from txmux.rules.feature import FILE_MEANWHILE, FILE_SECONDS, Feature, NetworkKind, WatchedSource
from txmux.rules.model import DynamicNetworks, Settings
from txmux.rules.optional import imported_late
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.context import RulesReading
from txmux.rules.reading.values import KeyFiles, SectionKey, ValueKind
from txmux.transport import IPAddress

DATABASES = "geo_databases"
"""The key with the files."""


@define(eq=False)
class GeoRegion:
    """The networks of a country, or of an autonomous system, as a database knows them.

    Attributes:
        key: ``country``, ``continent`` or ``as``.
        value: As in ISO 3166-1 (two capital letters), the code of a continent, or a number.
    """

    key: str
    value: str | int
    find: Callable[[IPAddress], frozenset[tuple[str, str | int]]] | None = attrs.field(
        default=None, init=False, repr=False
    )

    def __contains__(self, address: IPAddress) -> bool:
        return self.find is not None and (self.key, self.value) in self.find(address)


_CODE = re.compile("[A-Za-z]{2}")
_NUMBER = re.compile("(?:AS)?([0-9]{1,10})", re.IGNORECASE)
_MOST_SYSTEMS = 0xFFFFFFFF  # RFC 6793
_KEYS = ("country", "continent")


def _read(text: str, settings: Settings, *, alone: bool) -> DynamicNetworks:
    if text.startswith("as:"):
        match = _NUMBER.fullmatch(text.removeprefix("as:"))
        if not match or not 0 < int(match[1]) <= _MOST_SYSTEMS:
            message = f"{text!r} is not the number of an autonomous system; write for example 'as:AS64500'"
            raise InvalidValueError(message)
        where = GeoRegion("as", int(match[1]))
    else:
        key, equals, code = text.removeprefix("geo:").partition("=")
        if not equals or key not in _KEYS:
            message = f"{text!r} is not a place{listed(_KEYS)}; write for example 'geo:country=FR'"
            raise InvalidValueError(message)
        if not _CODE.fullmatch(code):
            raise InvalidValueError(
                f"{code!r} is not the code of a {key}; write two letters, for example 'geo:{key}="
                f"{'FR' if key == 'country' else 'EU'}'"
            )
        where = GeoRegion(key, code.upper())
    if not alone:
        _check_databases(text, settings)
    return DynamicNetworks("geo", f"{where.key}={where.value}", where)


def _check_databases(text: str, settings: Settings) -> None:
    # One that is named, and cannot be read, is an error of its own line.
    if not settings.more.get(DATABASES) and DATABASES not in settings.section.entries:
        raise InvalidValueError(
            f"{text!r} needs a database of networks; name its file as '{DATABASES}' in [txmux]"
        )
    if importlib.util.find_spec("maxminddb") is None:
        message = f"{text!r} needs the package maxminddb, which is not installed; run: {how_to_install('geo')}"
        raise InvalidValueError(message)


def _sources(
    _reactor: Any, _dynamic: DynamicNetworks, settings: Settings
) -> Iterator[WatchedSource]:
    for path in settings.more.get(DATABASES, ()):
        source = imported_late("txmux.features.geo.databases:WatchedDatabase")
        yield WatchedSource(f"geo:{path}", path, partial(source, path))


def _database(reading: RulesReading, text: str) -> Path:
    return reading.beside(text, "a database in MaxMind's format, such as GeoLite2-Country.mmdb")


_PATHS = ValueKind(_database, "list of paths", "list", in_context=True, paths=tuple)

# fmt: off
FEATURE = Feature(
    "geo",
    keys={"txmux": {
        DATABASES: SectionKey(_PATHS, example="/var/lib/GeoIP/GeoLite2-Country.mmdb", files=KeyFiles("worker"), shapes_others=True, meaning=
            "these files in MaxMind's format, with the extra `txmux[geo]`, are for [`geo:` and `as:` networks](#networks-from-other-sources)"),
    }},
    networks=NetworkKind(
        ("geo", "as"), _read, _sources, imported_late("txmux.features.geo.databases:GeoDatabase"), seconds=FILE_SECONDS, meanwhile=FILE_MEANWHILE
    ),
)
# fmt: on
