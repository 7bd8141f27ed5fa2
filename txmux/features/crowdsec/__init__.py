"""Bans of a CrowdSec: ``deny = crowdsec:URL``."""

from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from txmux.rules.feature import Feature, NetworkKind, WatchedSource
from txmux.rules.model import DynamicNetworks, NetworkSet, Settings
from txmux.rules.optional import imported_late
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.context import SECRET
from txmux.rules.reading.values import KeyFiles, SectionKey

_RULE = "crowdsec_key"


def _read(text: str, settings: Settings, *, alone: bool) -> DynamicNetworks:
    url = text.removeprefix("crowdsec:")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in {"http", "https"} or not parts.hostname or port == 0:
        message = f"{text!r} has no address of a CrowdSec; write for example 'crowdsec:http://127.0.0.1:8080'"
        raise InvalidValueError(message)
    if parts.username or parts.query or parts.fragment:
        raise InvalidValueError(
            f"'crowdsec:' takes an address alone, such as '{parts.scheme}://{parts.hostname}'; the key is in the "
            f"file of '{_RULE}' in [txmux]"
        )
    if _RULE not in settings.section.entries and not alone:
        raise InvalidValueError(
            f"needs a key: write what 'cscli bouncers add txmux' prints into a file, and name it as '{_RULE}' "
            "in [txmux]"
        )
    return DynamicNetworks("crowdsec", url.rstrip("/"), NetworkSet([]))


def _sources(reactor: Any, dynamic: DynamicNetworks, settings: Settings) -> Iterator[WatchedSource]:
    key = settings.more.get(_RULE)
    if key is not None:  # rules made in Python may lack it
        source = imported_late("txmux.features.crowdsec.source:CrowdSec")
        yield WatchedSource(dynamic.name, key, partial(source, reactor, dynamic.source, key))


# fmt: off
FEATURE = Feature(
    "crowdsec",
    keys={"txmux": {
        _RULE: SectionKey(SECRET, example="/etc/txmux/secrets/crowdsec.key", files=KeyFiles("supervisor", is_secret=True, reader="txmux.net.secrets:read_key"), shapes_others=True, meaning=
            "this file has the key for [`crowdsec:` networks](#networks-from-other-sources)"),
    }},
    networks=NetworkKind(
        ("crowdsec",), _read, _sources, None, seconds=10.0,
        meanwhile="the bans known so far stay until they end",
        not_allowed="is for 'deny' alone: CrowdSec lists banned networks",
        secret=_RULE,
    ),
)
# fmt: on
