"""The frontends of an ``haproxy.cfg``: where they listen, and who is led where."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txmux.convert.haproxy.admission import admitted, as_lists
from txmux.convert.haproxy.binds import bind
from txmux.convert.haproxy.conditions import read_acls, read_question
from txmux.convert.haproxy.decisions import CLOSE, Choice, Decisions, asked
from txmux.convert.haproxy.lines import duration
from txmux.convert.haproxy.terms import ALWAYS, Condition, InexpressibleError, both, negated
from txmux.convert.matching import refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.convert.haproxy.conditions import Question
    from txmux.convert.haproxy.lines import Line, Proxy
    from txmux.convert.haproxy.terms import Term
    from txmux.convert.writer import Draft, Section
    from txmux.interfaces import IProtocolMatcher

_OPEN = ", and so the clients that it keeps out come in"
_REFUSING = frozenset({"reject", "silent-drop"})
_DECIDING = frozenset({"accept", *_REFUSING})
_EVERYBODY = ["0.0.0.0/0", "::/0", "unix"]
_LEADING = ("use_backend", "default_backend")
_LAYERS = ("connection", "session")


@attrs.frozen
class Made:
    """What is made of a file so far.

    Attributes:
        proxies: The backends of the file that are converted, by name.
        backends: Their sections, by the same names.
        used: The numbers of the lines that need no more to be told of.
    """

    draft: Draft
    matchers: Mapping[str, IProtocolMatcher]
    proxies: dict[str, Proxy] = attrs.field(factory=dict)
    backends: dict[str, Section] = attrs.field(factory=dict)
    used: set[int] = attrs.field(factory=set)


@attrs.define
class Frontend:
    """A frontend while it is converted.

    Attributes:
        several: There are others.
    """

    proxy: Proxy
    made: Made
    several: bool
    listeners: list[Section] = attrs.field(factory=list)

    def convert(self) -> None:
        """Write its listeners and routes."""
        for line in self.proxy.all("bind"):
            self.made.used.add(line.number)
            bind(line, self.proxy.name, self.listeners, self.made.draft)
        if not self.listeners:
            message = f"{self.proxy.kind} {self.proxy.name}: is left out; it listens nowhere"
            self.made.draft.look(self.proxy.number, message)
            for word in ("acl", "use_backend", "default_backend", "tcp-request"):
                self.made.used.update(line.number for line in self.proxy.all(word))
            return
        refused, decisions = self._decisions().distinct().turned_away()
        self._listener_keys(decisions)
        self._admission(refused)
        self._silence(decisions)
        self._routes(decisions)

    def _lost(self, line: Line, why: str, consequence: str = "") -> None:
        message = f"{line}: is left out{consequence}: {why}"
        self.made.draft.look(line.number, message, self.listeners[0])

    def _question(
        self, line: Line, start: int, acls: Mapping[str, Condition | InexpressibleError]
    ) -> Question | None:
        """Read a condition; if it has no counterpart, say so."""
        self.made.used.add(line.number)
        try:
            return read_question(line.words[start:], acls)
        except InexpressibleError as error:
            self._lost(line, str(error), _OPEN if _refuses(line) else "")
            return None

    def _asked(
        self,
        line: Line,
        start: int,
        acls: Mapping[str, Condition | InexpressibleError],
        yes: Decisions,
        no: Decisions,
    ) -> Decisions:
        question = self._question(line, start, acls)
        if question is None:
            return no

        def lost(other: Line, why: str) -> None:
            message = f"{other}: not for those of {line}: {why}"
            self.made.draft.look(other.number, message, self.listeners[0])

        try:
            return asked(question, line, yes, no, lost)
        except InexpressibleError as error:
            self._lost(line, str(error), _OPEN if _refuses(line) else "")
            return no

    def _decisions(self) -> Decisions:
        """Read who is led where, from the end on."""
        acls = read_acls(self.proxy.all("acl"))
        found = self._default()
        for line in reversed(self.proxy.all("use_backend")):
            if len(line.words) > 1:
                found = self._asked(line, 2, acls, self._to_backend(line, line.words[1]), found)
        return self._by_content(self.proxy, acls, found)

    def _by_content(
        self, proxy: Proxy, acls: Mapping[str, Condition | InexpressibleError], accepted: Decisions
    ) -> Decisions:
        found = accepted
        for line in reversed(proxy.all("tcp-request", "content")):
            if len(line.words) > 2 and line.words[2] in _DECIDING:
                yes = Decisions() if _refuses(line) else accepted
                found = self._asked(line, 3, acls, yes, found)
        return found

    def _default(self) -> Decisions:
        own = self.made.backends.get(self.proxy.name) if self.proxy.kind == "listen" else None
        line = self.proxy.value("default_backend")
        if line:
            return self._to_backend(line, line.words[1])
        return Decisions(otherwise=own.name) if own else Decisions()

    def _to_backend(self, line: Line, name: str) -> Decisions:
        """Lead to a backend, or to where its own rules lead."""
        self.made.used.add(line.number)
        section, proxy = self.made.backends.get(name), self.made.proxies.get(name)
        if section is None or proxy is None:
            why = f"there is no backend {name!r} in the file, or it is disabled"
            if "%[" in name:
                why = "a name that is put together for each client has no counterpart"
            self.made.draft.look(
                line.number, f"{line}: {why}; these clients are closed", self.listeners[0]
            )
            return Decisions()
        found = Decisions(otherwise=section.name)
        if proxy is self.proxy:
            return found
        return self._by_content(proxy, read_acls(proxy.all("acl")), found)

    def _listener_keys(self, decisions: Decisions) -> None:
        pairs = (("maxconn", "max_connections"), ("backlog", "backlog"))
        for name, key in pairs:
            line = self.proxy.value(name)
            if line:
                self.made.used.add(line.number)
                for listener in self.listeners:
                    if key not in listener.entries:
                        listener.add(key, line.words[1], line.number)
                    if name == "maxconn":
                        message = (
                            f"{line}: HAProxy lets further clients wait, and txmux closes them"
                        )
                        self.made.draft.warn(line.number, message, listener)
        led = {line.words[1] for w in _LEADING for line in self.proxy.all(w) if line.words[1:]}
        proxies = [self.proxy, *(p for name, p in self.made.proxies.items() if name in led)]
        delays = [line for p in proxies if (line := p.value("tcp-request", "inspect-delay"))]
        self.made.used.update(line.number for line in delays)
        for listener in self.listeners:
            if not decisions.choices:
                listener.notes.append(
                    "no route: nobody is kept waiting for the client's first byte"
                )
                listener.add("detect_timeout", "1ms")
            elif delays:
                listener.add("detect_timeout", duration(delays[0].words[2]), delays[0].number)
            else:
                listener.notes.append(
                    "without inspect-delay, HAProxy decides by what has come at once; txmux waits for detect_timeout"
                )

    def _admission(self, refused: Iterable[Choice]) -> None:
        layers = [(layer, *self._admitted(layer)) for layer in _LAYERS]
        layers += [("content", negated(c.condition), [c.line]) for c in refused]
        for listener in self.listeners:
            self._let_in(listener, [layer for layer in layers if layer[2]])

    def _admitted(self, layer: str) -> tuple[Condition, list[Line]]:
        """Read whom the rules of a layer let in, and which these are."""
        acls = read_acls(self.proxy.all("acl"))
        rules: list[tuple[bool, Condition]] = []
        lines: list[Line] = []
        for line in self.proxy.all("tcp-request", layer):
            action = line.words[2] if len(line.words) > 2 else ""
            if action not in {*_DECIDING, "expect-proxy"}:
                continue
            question = self._question(line, 4 if action == "expect-proxy" else 3, acls)
            try:
                condition = question.networks() if question else None
            except InexpressibleError as error:
                condition = None
                self._lost(line, str(error), _OPEN if _refuses(line) else "")
            if condition is None:
                continue
            if action == "expect-proxy":
                self._expect_proxy(line, condition)
            else:
                rules.append((action == "accept", condition))
                lines.append(line)
        try:
            return admitted(rules), lines
        except InexpressibleError as error:
            self._all_lost(lines, str(error))
            return ALWAYS, []

    def _all_lost(self, lines: Iterable[Line], why: str) -> None:
        for line in lines:
            self._lost(line, why, _OPEN)

    def _expect_proxy(self, line: Line, condition: Condition) -> None:
        try:
            networks, excluded = (_EVERYBODY, []) if condition == ALWAYS else as_lists(condition)
        except InexpressibleError as error:
            self._lost(line, str(error))
            return
        if excluded or not networks:
            self._lost(line, "accept_proxy_from has a list of networks only")
            return
        for listener in self.listeners:
            for network in networks:
                listener.add("accept_proxy_from", network, line.number)

    def _let_in(
        self, listener: Section, layers: Iterable[tuple[str, Condition, list[Line]]]
    ) -> None:
        found = ALWAYS
        kept: list[Line] = []
        for layer, condition, lines in layers:
            if layer == "connection" and "accept_proxy_from" in listener.entries:
                why = "it asks for the proxy's address, and allow and deny for the client's"
                self._all_lost(lines, why)
                continue
            try:
                found = both(found, condition)
                kept += lines
            except InexpressibleError as error:
                self._all_lost(lines, str(error))
        try:
            allow, deny = as_lists(found)
        except InexpressibleError as error:
            self._all_lost(kept, str(error))
            return
        for key, networks in (("allow", allow), ("deny", deny)):
            for network in networks:
                listener.add(key, network, kept[-1].number)

    def _silence(self, decisions: Decisions) -> None:
        silent = decisions.outcome_of_silence()
        if silent is None:
            silent = CLOSE
            line = next(c.line for c in decisions.choices if c.takes_silence())
            message = (
                f"{line}: clients that say nothing are led by silent, which knows no networks, and are closed; "
                "name in silent where they may go"
            )
            self.made.draft.look(line.number, message, self.listeners[0])
        for listener in self.listeners:
            for key, outcome in (("silent", silent), ("default", decisions.otherwise)):
                if outcome != CLOSE:
                    listener.add(key, outcome)

    def _routes(self, decisions: Decisions) -> None:
        choices = list(decisions.choices)
        # What HAProxy is only asked to wait for needs no route.
        while (
            choices
            and choices[-1].outcome == decisions.otherwise
            and choices[-1].line.begins("tcp-request")
        ):
            choices.pop()
        for choice in choices:
            self._route(choice)

    def _route(self, choice: Choice) -> None:
        groups: dict[tuple[object, object], list[Term]] = {}
        for term in choice.condition:
            why = refusal(str(term), self.made.matchers)
            if why:
                message = f"{choice.line}: match = {term} is left out: {why}"
                consequence = _OPEN if choice.outcome == CLOSE else ""
                self.made.draft.look(choice.line.number, message + consequence, self.listeners[0])
            else:
                groups.setdefault((term.allowed, term.excluded), []).append(term)
        for alternatives in groups.values():
            section = self.made.draft.section("route", choice.outcome, choice.line.number)
            for alternative in alternatives:
                section.add("match", str(alternative))
            first = alternatives[0]
            for key, networks in (("from", first.allowed), ("not_from", first.excluded)):
                for network in sorted(map(str, networks or ())):
                    section.add(key, network)
            if self.several:
                for listener in self.listeners:
                    section.add("under", listener.name)
            section.add("backend", choice.outcome)


def _refuses(line: Line) -> bool:
    return line.begins("tcp-request") and line.words[2:3] != () and line.words[2] in _REFUSING
