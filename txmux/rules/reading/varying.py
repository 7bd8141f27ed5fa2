"""Networks that others tell: ``crowdsec:URL``, ``geo:country=FR``, ``as:AS64500``."""

from __future__ import annotations

import importlib.util
import re
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from txmux.rules.model import NetworkSet, Place, Varying
from txmux.rules.problems import InvalidValueError, suggestion

if TYPE_CHECKING:
    from txmux.rules.model import Settings

CROWDSEC, PLACE, SYSTEM = "crowdsec:", "geo:", "as:"
"""How they begin."""

_CODE = re.compile("[A-Za-z]{2}")
_NUMBER = re.compile("(?:AS)?([0-9]{1,10})", re.IGNORECASE)
_MOST_SYSTEMS = 0xFFFFFFFF  # RFC 6793
_KEYS = ("country", "continent")


def crowdsec(text: str, settings: Settings, *, alone: bool) -> Varying:
    """Read the address of a CrowdSec: what it bans is known when the service runs.

    Args:
        text: As it is written.
        settings: Those of the service, which have the key.
        alone: Whether these are unknown.

    Raises:
        InvalidValueError: It is not one, or there is no key.
    """
    url = text.removeprefix(CROWDSEC)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        raise InvalidValueError(
            f"{text!r} has no address of a CrowdSec; write for example 'crowdsec:http://127.0.0.1:8080'"
        )
    if parts.username or parts.query or parts.fragment:
        raise InvalidValueError(
            f"'crowdsec:' takes an address alone, such as '{parts.scheme}://{parts.hostname}'; the key is in the "
            "file of 'crowdsec_key' in [txmux]"
        )
    if settings.crowdsec_key is None and not alone:
        raise InvalidValueError(
            "needs a key: write what 'cscli bouncers add txmux' prints into a file, and name it as 'crowdsec_key' "
            "in [txmux]"
        )
    return Varying("crowdsec", url.rstrip("/"), NetworkSet([]))


def place(text: str, settings: Settings, *, alone: bool) -> Varying:
    """Read a country, a continent or an autonomous system.

    Args:
        text: As it is written.
        settings: Those of the service, which have the databases.
        alone: Whether these are unknown.

    Raises:
        InvalidValueError: It is not one, or there is nothing to look it up in.
    """
    if text.startswith(SYSTEM):
        found = _NUMBER.fullmatch(text.removeprefix(SYSTEM))
        if not found or not 0 < int(found[1]) <= _MOST_SYSTEMS:
            raise InvalidValueError(
                f"{text!r} is not the number of an autonomous system; write for example 'as:AS64500'"
            )
        where = Place("as", int(found[1]))
    else:
        key, equals, code = text.removeprefix(PLACE).partition("=")
        if not equals or key not in _KEYS:
            hint = suggestion(key, _KEYS)
            raise InvalidValueError(
                f"{text!r} is not a place{hint}; write for example 'geo:country=FR'"
            )
        if not _CODE.fullmatch(code):
            raise InvalidValueError(
                f"{code!r} is not the code of a {key}; write two letters, for example '{PLACE}{key}="
                f"{'FR' if key == 'country' else 'EU'}'"
            )
        where = Place(key, code.upper())
    if not alone:
        _check_databases(text, settings)
    return Varying("geo", f"{where.key}={where.value}", where)


def _check_databases(text: str, settings: Settings) -> None:
    if not settings.geo_databases:
        raise InvalidValueError(
            f"{text!r} needs a database of networks; name its file as 'geo_databases' in [txmux]"
        )
    if importlib.util.find_spec("maxminddb") is None:
        raise InvalidValueError(
            f"{text!r} needs the package maxminddb, which is not installed; run: pip install 'txmux[geo]'"
        )
