"""Decisions of a listener as routes, ``default`` and ``silent``."""

from collections.abc import Iterable

import attrs

from txmux_convert.decision_list import DecisionList
from txmux_convert.matching import refusal
from txmux_convert.terms import VERIFIED, Networks, Term
from txmux_convert.writer import Draft, DraftSection, Origin

CLOSE = "close"


@attrs.frozen
class RouteWriter:
    """Writes routes; of each it knows the listener that it is for."""

    draft: Draft
    listeners: list[DraftSection] = attrs.field(factory=list)
    routes: list[tuple[DraftSection, DraftSection]] = attrs.field(factory=list)

    def write(self, listener: DraftSection, decided: DecisionList[str], *, waits: bool) -> None:
        """Write the destinations of clients; `waits` if the other program needs their bytes anyway."""
        if decided.cases and not waits:
            # These are connected at once, so that servers may speak first.
            for case in decided.cases:
                networks = ",".join(n for t in case.condition for n in texts_of(t.allowed))
                listener.add("silent", f"{case.result} from={networks} after=1ms", case.line)
            if decided.otherwise != CLOSE:
                listener.add("silent", f"{decided.otherwise} after=1ms", decided.line)
        if decided.otherwise != CLOSE:
            listener.add("default", decided.otherwise, decided.line)
        for case in decided.cases:
            self.route(listener, case.condition, case.result, case.line)

    def route(
        self,
        listener: DraftSection,
        condition: Iterable[Term],
        outcome: str,
        line: Origin,
        name: str = "",
        under: Iterable[str] = (),
        consequence: str = "",
    ) -> list[DraftSection]:
        """Write the routes for a condition: one for all in the same networks with the same certificates.

        What follows from a term that is left out is its `consequence`.
        """
        groups: dict[object, list[Term]] = {}
        for term in condition:
            why = refusal(str(term), self.draft.matchers)
            if why:
                listener.flag(line, f"match = {term} is left out: {why}{consequence}")
            else:
                kind = term.allowed, term.excluded, term.certificate
                groups.setdefault(kind, []).append(term)
        sections: list[DraftSection] = []
        for terms in groups.values():
            name = name or ("closed" if outcome == CLOSE else outcome)
            section = self.draft.section("route", name, line)
            sections.append(section)
            for term in terms:
                section.add("match", str(term), line)
            for key, networks in (("from", terms[0].allowed), ("not_from", terms[0].excluded)):
                section.add_each(key, texts_of(networks), line)
            shown = terms[0].certificate
            section.add_each("client_cert", sorted(shown - {"any", VERIFIED}) or shown & {"any"})
            section.add_each("under", under)
            section.add("backend", outcome, line)
        self.routes.extend((section, listener) for section in sections)
        return sections

    def finish(self) -> None:
        """Say which listener each route is for, if there are several."""
        if len(self.listeners) < 2:
            return
        for section, listener in self.routes:
            outcome = section.entries.pop("backend")
            section.add("under", listener.name)
            section.entries["backend"] = outcome


def texts_of(networks: Iterable[Networks] | None) -> list[str]:
    different = {*(networks or ())}
    plain = [n for n in different if not isinstance(n, str)]
    plain.sort(key=lambda n: (n.version, n.network_address, n.prefixlen))
    texts = [str(n.network_address if n.prefixlen == n.max_prefixlen else n) for n in plain]
    return sorted(n for n in different if isinstance(n, str)) + texts


def add_destinations(
    section: DraftSection, program: str, place: str, line: int, names: str = "*"
) -> None:
    """Let clients choose the name in the place of a server, as they may in another program."""
    section.add("allow_names", names, line)
    section.add("allow_networks", "public, 0.0.0.0/0, ::/0", line)
    message = (
        f"{place}: clients choose where they go, as in {program}; name the names that are meant in "
        "allow_names, and remove allow_networks unless they lead to private addresses"
    )
    section.flag(line, message)
