"""What `txmux check --connect` has found, each server once, with what leads there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from txmux.rules.model import NOWHERE, backends_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.backends.health.tryout import Tried
    from txmux.rules.model import Outcome, Rules


@attrs.frozen
class Reached:
    """A server, and what became of all tries at it that ended in the same way.

    Attributes:
        server: As it is written.
        address: What its name was looked up to; empty if it is an address itself.
        problem: Why it could not be reached, or is not healthy; empty if it is.
        backends: The backends that have it; not the short forms of one server.
        routes: The routes that lead there, be it by a fallback.
        listeners: The listeners whose ``default`` or ``silent`` do.
    """

    server: str
    address: str
    problem: str
    backends: tuple[str, ...]
    routes: tuple[str, ...]
    listeners: tuple[str, ...]

    def __str__(self) -> str:
        leads = [
            *(f"[backend {name}]" for name in self.backends),
            *(f"[route {name}]" for name in self.routes),
            *(f"[listen {name}]" for name in self.listeners),
        ]
        place = f"{self.server} at {self.address}" if self.address else self.server
        return f"{place}: {self.problem or 'OK'} ({', '.join(leads)})"

    def as_json(self) -> dict[str, Any]:
        """Return it as an object of the document."""
        return {
            **attrs.asdict(self),
            "address": self.address or None,
            "problem": self.problem or None,
        }


def reached(rules: Rules, tried: Iterable[Tried]) -> list[Reached]:
    """Put together what is of the same server.

    Args:
        rules: What was tried.
        tried: All that was found.

    Returns:
        The servers in the order of their first try. One that was tried in several ways, of which only some worked, is there for each result.
    """
    groups: dict[tuple[str, str, str], list[Tried]] = {}
    for one in tried:
        groups.setdefault((one.server, one.address, one.problem), []).append(one)
    return [_together(rules, some) for some in groups.values()]


def _together(rules: Rules, some: list[Tried]) -> Reached:
    backends = [one.backend for one in some]

    def leads(*outcomes: Outcome | None) -> bool:
        return any(one in backends for one in backends_of(outcomes))

    def listeners() -> Iterator[str]:
        for listener in rules.listeners:
            if leads(listener.default, *(line.outcome for line in listener.silent)):
                yield listener.name

    return Reached(
        some[0].server,
        some[0].address,
        some[0].problem,
        tuple(backend.name for backend in backends if backend.section is not NOWHERE),
        tuple(route.name for route in rules.routes if leads(route.outcome)),
        tuple(listeners()),
    )
