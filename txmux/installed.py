"""Lists the features that are installed; the core knows them by this list alone. A folder that is missing is left out."""

from collections.abc import Iterator, Mapping
from importlib import import_module

import attrs

from txmux.features.feature import Feature, ServerStart
from txmux.rules.model import Backend, DynamicNetworks, Settings
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.values import SectionKey

_WORDS = {
    "crowdsec": ("crowdsec_key", "crowdsec:"),
    "geo": ("geo_databases", "geo:", "as:"),
    "wake": ("wake",),
}
"""All features, in the order in which they are asked, with what rules may say of each: its keys, and how its networks begin."""


def _installed() -> Iterator[Feature]:
    for name in _WORDS:
        module = f"txmux.features.{name}"
        try:
            yield import_module(module).FEATURE
        except ModuleNotFoundError as problem:
            if problem.name != module:  # it lacks something itself
                raise


FEATURES = tuple(_installed())

KEYS: Mapping[str, Mapping[str, SectionKey]] = {
    kind: {
        name: attrs.evolve(key, feature=feature.name)
        for feature in FEATURES
        for name, key in feature.keys.get(kind, {}).items()
    }
    for kind in ("txmux", "listen", "route", "backend")
}
"""The keys of features, by the kind of section."""

NETWORKS = {feature.name: feature.networks for feature in FEATURES if feature.networks is not None}
"""What kinds of networks there are beside addresses and files, by the names of their features."""

READ_BY_EACH = {name: kind.reader for name, kind in NETWORKS.items() if kind.reader is not None}
"""What each process reads for itself; a source's message is anything that differs when it is to be read again."""

_MISSING = {
    word: name
    for name, words in _WORDS.items()
    for word in words
    if all(feature.name != name for feature in FEATURES)
}


def missing(word: str) -> str:
    """Return why a key, or how networks begin, is unknown here, if a feature that is not installed knows it."""
    part = _MISSING.get(word)
    return f"this needs the part {part}, which is not installed" if part else ""


def networks_of(
    text: str, settings: Settings, *, alone: bool, denied: bool
) -> DynamicNetworks | None:
    """Read ``NAME:TEXT`` if the name is that of a feature's networks; see `NetworkKind`. They are either ``denied``, or allowed."""
    name, colon, _ = text.partition(":")
    if why := missing(name + colon):
        raise InvalidValueError(f"{text!r}: {why}")
    kind = next((kind for kind in NETWORKS.values() if name in kind.words), None)
    if kind is None or not colon:
        return None
    if kind.not_allowed and not denied:
        raise InvalidValueError(f"{text!r} {kind.not_allowed}")
    return kind.read(text, settings, alone=alone)


def start_of(backend: Backend) -> ServerStart | None:
    """Return what starts the servers of a backend while clients wait for them."""
    return next(filter(None, (feature.start_of(backend) for feature in FEATURES)), None)
