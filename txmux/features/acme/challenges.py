"""Puts routes before those of a listener, for authorities that check a name by TLS-ALPN-01 (RFC 8737)."""

from collections.abc import Mapping
from typing import Any

import attrs

from txmux.client.configuration import CompiledRoute, Configuration, RuleLayer
from txmux.detection.detector import Detector
from txmux.detection.ranked import GAP, ListChange, finish
from txmux.interfaces import Transport
from txmux.matchers.tls import tls
from txmux.rules.model import Alternative, Refusal

NAME = "acme-tls/1"
"""Of these routes, in the access log. No route of a rules file can be called so."""


def with_challenges(configuration: Configuration, challenges: Mapping[str, Any]) -> Configuration:
    """Return a configuration that answers challenges: by the name that is checked, the TLS of each.

    A listener that decides without a byte of the client answers none.
    """
    plain = configuration.plain or configuration
    top = plain.top
    routes = top.detector.routes
    if (
        not challenges
        or not routes
        or top.server_first
        or plain.settings.transport is not Transport.TCP
    ):
        return plain
    first = [
        CompiledRoute(
            NAME, (_alternative(name),), None, terminator=terminator, counts=plain.counts.unrouted
        )
        for name, terminator in challenges.items()
    ]
    start = top.detector.ranks[0] - GAP * len(first)
    new = [(start + GAP * number, route) for number, route in enumerate(first)]
    before = top.detector
    detector = finish(before.changed(ListChange((), new), before.peek_limit, before.on_would_take))
    detector.would_have_taken = top.detector.would_have_taken
    detector.takes_any_client = top.detector.takes_any_client
    nothing = RuleLayer(Detector([]), (), Refusal.CLOSE)
    return attrs.evolve(
        plain,
        top=attrs.evolve(top, detector=detector),
        inside={**plain.inside, NAME: nothing},
        plain=plain,
    )


def _alternative(name: str) -> Alternative:
    options = {"sni": name, "alpn": NAME}
    return Alternative(f"tls sni={name} alpn={NAME}", tls.predicate(options))
