"""Lines of a route that no client can match, since none comes by what they are for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.interfaces import Transport
from txmux.rules.lint.scopes import scopes
from txmux.rules.model import Listener

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.model import Rules
    from txmux.rules.problems import Problem


def lines_of_the_other(rules: Rules) -> Iterator[Problem]:
    """Find matchers for UDP in routes that only have clients of TCP, and the other way round."""
    owners = [scope.owner for scope in scopes(rules)]
    for route in rules.routes:
        places = [owner for owner in owners if route.stands_under(owner)]
        asked = {p.transport if isinstance(p, Listener) else Transport.TCP for p in places}
        if len(asked) != 1:
            continue
        [there] = asked
        other = Transport.UDP if there is Transport.TCP else Transport.TCP
        for number, line in enumerate(route.alternatives):
            if line.over(there) is None:
                message = (
                    f"{line.text!r} is for {other.value.upper()}, and all clients of this route come by "
                    f"{there.value.upper()}; put it into a route of its own, or remove it"
                )
                yield route.section.problem(message, "match", number)
