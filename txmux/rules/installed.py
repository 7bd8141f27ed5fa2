"""What the installed features add to rules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_args

import attrs

from txmux.rules.feature import (
    Feature,
    FeatureStage,
    Finding,
    SectionKind,
    ServerDialler,
    ServerStart,
    StageMaker,
)
from txmux.rules.model import (
    Backend,
    DynamicNetworks,
    ForwardProxy,
    Listener,
    Route,
    Rules,
    Server,
    Settings,
)
from txmux.rules.optional import WORDS, load, missing, named
from txmux.rules.problems import InvalidValueError, Problem
from txmux.rules.reading import endpoints
from txmux.rules.reading.values import SectionKey

FEATURES: tuple[Feature, ...] = tuple(filter(None, map(load, WORDS)))
_KINDS: Sequence[SectionKind] = get_args(SectionKind)


def _key(feature: Feature, name: str, key: SectionKey) -> SectionKey:
    makers = [one.maker for one in feature.stages if one.key == name]
    makers += [feature.connecting[name]] if name in feature.connecting else []
    modules = [maker.partition(":")[0] for maker in makers]
    own = key.loads or (lambda _: ())
    loads = (lambda value: (*modules, *own(value))) if modules else key.loads
    return attrs.evolve(key, feature=feature.name, loads=loads)


KEYS: Mapping[str, Mapping[str, SectionKey]] = {
    kind: {
        name: _key(feature, name, key)
        for feature in FEATURES
        for name, key in feature.keys.get(kind, {}).items()
    }
    for kind in _KINDS
}
"""The keys of features, by the kind of section."""

HINTS: Mapping[str, Mapping[str, str]] = {
    kind: {key: hint for feature in FEATURES for key, hint in feature.hints.get(kind, {}).items()}
    for kind in _KINDS
}
"""What to do about keys that are none, as in `KEY_HINTS` of the core."""

CONTRADICTIONS: Mapping[str, Sequence[Callable[..., Iterable[Problem]]]] = {
    kind: [of[kind] for feature in FEATURES if kind in (of := feature.contradictions)]
    for kind in _KINDS
}

CONFLICTS = [find for feature in FEATURES for find in feature.conflicts]

OUTER = [name for name, key in KEYS["route"].items() if key.is_outer]

STAGES: Mapping[str, Sequence[FeatureStage]] = {
    kind: [stage for feature in FEATURES for stage in feature.stages if stage.key in keys]
    for kind, keys in {**KEYS, "match": ("match",)}.items()
}
"""The stages that clients pass by keys of a listener, or of a route, or by what its lines match."""

_CONNECTING = {key: maker for feature in FEATURES for key, maker in feature.connecting.items()}

NETWORKS = {feature.name: feature.networks for feature in FEATURES if feature.networks is not None}
"""What kinds of networks there are beside addresses and files, by the names of their features."""

OPENINGS = tuple(feature.openings for feature in FEATURES if feature.openings is not None)
"""What opens inner hellos of clients."""

MANAGED = next((feature.certificates for feature in FEATURES if feature.certificates), None)
"""The certificates that a feature gets and renews."""


def finders(finding: Finding) -> list[Callable[[Rules], Iterable[Problem]]]:
    return [find for feature in FEATURES for find in feature.finds.get(finding, ())]


_Row = TypeVar("_Row")


@cache
def rows(kind: type[_Row]) -> tuple[_Row, ...]:
    return tuple(row for feature in FEATURES for row in feature.rows() if isinstance(row, kind))


def watchers_inside(protocols: Iterable[str]) -> list[str]:
    """Name what watches clients that speak one of these protocols inside TLS that ends here; see `Feature.inside`."""
    found = (feature.inside.get(protocol) for protocol in protocols for feature in FEATURES)
    return [name for name in found if name]


@cache
def watchers_of(protocol: bytes | None) -> list[Callable[..., object]]:
    return [*map(named, watchers_inside([(protocol or b"").decode("latin-1")]))]


READ_BY_EACH = {name: kind.reader for name, kind in NETWORKS.items() if kind.reader is not None}
"""What each process reads for itself; a source's message is anything that differs when it is to be read again."""

SERVERS = {feature.servers.word: feature.servers for feature in FEATURES if feature.servers}
"""The kinds of servers that features find."""


def stages_in_use(kind: str, section: Listener | Route) -> list[FeatureStage]:
    return [stage for stage in STAGES[kind] if section.more.get(stage.key)] if section.more else []


def stage_makers(kind: str, section: Listener | Route) -> tuple[StageMaker, ...]:
    return tuple(named(stage.maker)(section) for stage in reversed(stages_in_use(kind, section)))


def dialler_of(proxy: ForwardProxy, *made_with: Any) -> ServerDialler:
    """Make what connects through a proxy; see `Feature.connecting`."""
    dialler: ServerDialler = named(_CONNECTING[proxy.key])(proxy, *made_with)
    return dialler


@cache
def match_makers() -> tuple[StageMaker, ...]:
    return tuple(named(stage.maker)() for stage in STAGES["match"])


_LETTING_SOME = {name: key.usual for name, key in KEYS["route"].items() if key.lets_some}


def conditions(route: Route) -> tuple[object, ...]:
    """Return the values of features' keys by which a route lets only some clients pass."""
    return tuple([route.more.get(name, usual) for name, usual in _LETTING_SOME.items()])


def networks_of(
    text: str,
    settings: Settings,
    *,
    alone: bool,
    denied: bool,
    refuse_others: Callable[[str], None],
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
    if kind.secret:
        refuse_others(f"{text!r}, which is sent the secret of {kind.secret!r}")
    return kind.read(text, settings, alone=alone)


def server_kind_of(text: str) -> endpoints.ServerKind | None:
    """Return the kind of a server ``WORD:TEXT`` if a feature finds such ones; a host with a port may be called like that, too."""
    word, colon, rest = text.partition(":")
    if rest.isdecimal():
        return None
    if why := missing(word + colon):
        raise InvalidValueError(f"{text!r}: {why}")
    return SERVERS.get(word) if colon else None


def read_server(text: str) -> Server:
    return endpoints.server(text, server_kind_of)


def start_of(backend: Backend) -> ServerStart | None:
    return next(filter(None, (feature.start_of(backend) for feature in FEATURES)), None)


def is_asleep(backend: Backend) -> bool:
    """Return whether the rules have all its servers out of use until a client waits for them."""
    are_down = all(server.down for server in backend.servers)
    return bool(backend.hold) and are_down and start_of(backend) is not None
