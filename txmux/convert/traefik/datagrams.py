"""The UDP routers of Traefik, which have no rules: one of them has an entry point, and leads all of it to a service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.terms import InexpressibleError
from txmux.convert.traefik.services import duration

if TYPE_CHECKING:
    from txmux.convert.leading import Leading
    from txmux.convert.traefik.reader import Node
    from txmux.convert.traefik.routers import EntryPoint
    from txmux.convert.traefik.services import Services

_TIMEOUT = "3s"
"""How long a session may be idle where nothing is written."""


@attrs.frozen
class DatagramRouting:
    """Makes listeners of UDP routers.

    Attributes:
        leading: Writes them.
        services: Where they lead.
    """

    leading: Leading
    services: Services

    def convert(self, point: EntryPoint, routers: list[tuple[str, Node]]) -> None:
        """Write an entry point with its routers."""
        draft, node = self.leading.draft, point.node
        section = draft.section("listen", point.name, node.line)
        self.leading.listeners.append(section)
        section.add("endpoint", point.endpoint, node.get("address").line)
        (name, router), *others = routers
        for other, unused in others:
            message = f"router {other}: is left out: entryPoints.{point.name} has {name} already, and Traefik takes one of them"
            draft.look(unused.line, message, section)
        timeout = node.get("udp", "timeout")
        try:
            outcome = self.services.outcome(
                router.get("service").text, duration(timeout.text or _TIMEOUT)
            )
        except InexpressibleError as error:
            draft.look(router.line, f"router {name}: its clients are closed: {error}", section)
            return
        section.add("default", outcome, router.line)
