"""The variables of a ``stream`` block, and what they are for each client."""

from collections.abc import Iterable, Mapping

import attrs

from txmux_convert.decision_list import DecisionList, always
from txmux_convert.nginx.lookups import ADDRESS, NAME, PROTOCOLS, VERSION, look_up
from txmux_convert.nginx.maps import MapEntry, ParsedMap, by_network, read_map
from txmux_convert.nginx.reader import Directive
from txmux_convert.nginx.values import Value, Variable, joined, shown, value_of
from txmux_convert.terms import InexpressibleError
from txmux_convert.writer import Report

_PREREAD = {
    "ssl_preread_server_name": NAME,
    "ssl_preread_alpn_protocols": PROTOCOLS,
    "ssl_preread_protocol": VERSION,
}
_ENDED = {"ssl_server_name": NAME}
NAMES_OF_TLS = tuple(name for name, fact in {**_PREREAD, **_ENDED}.items() if fact == NAME)
_ADDRESS = {"remote_addr": ADDRESS}
_MOST_DEPTH = 20


@attrs.frozen
class ListenContext:
    """What is known before a client comes.

    Attributes:
        preread: Whether nginx looks into the ClientHello.
        ended: Whether TLS ends there.
        fixed: Variables whose values are known of the clients in question.
    """

    host: str
    port: str
    preread: bool = False
    ended: bool = False
    fixed: tuple[tuple[str, Value], ...] = ()

    def constants(self) -> Mapping[str, str]:
        port = "{port}" if "-" in self.port else self.port
        constants = {"server_port": port, "protocol": "TCP"}
        if self.host not in {"", "0.0.0.0", "::"}:  # noqa: S104 - it is compared
            constants["server_addr"] = self.host
        return constants if self.preread else {**constants, **dict.fromkeys(_PREREAD, "")}

    def facts(self) -> Mapping[str, str]:
        return {**_ADDRESS, **(_PREREAD if self.preread else {}), **(_ENDED if self.ended else {})}


class Variables:
    """The variables that the configuration defines."""

    def __init__(self, directives: Iterable[Directive], lost: Report) -> None:
        self._lost = lost
        self._defined = {
            d.parameters[-1].removeprefix("$"): d
            for d in directives
            if d.name in {"map", "geo", "split_clients"} and d.parameters
        }
        self._maps: dict[str, ParsedMap] = {}
        self._texts: dict[str, Directive] = {}

    def set(self, directives: Iterable[Directive]) -> None:
        self._texts = {d.value.removeprefix("$"): d for d in directives if len(d.words) == 3}

    def shares(self, value: Value) -> Directive | None:
        """Return the block ``split_clients`` that a value is of, if it is that alone."""
        if len(value) != 1 or not isinstance(value[0], Variable):
            return None
        directive = self._defined.get(value[0].name)
        return directive if directive and directive.name == "split_clients" else None

    def decide(
        self, text: str, line: int, listen: ListenContext, depth: int = 0
    ) -> DecisionList[Value]:
        """Return what a text is for each client; variables that may have any value are left."""
        if depth > _MOST_DEPTH:
            raise InexpressibleError(f"{text} depends on itself")
        nothing: Value = ()
        decided = always(nothing, line)
        for piece in value_of(text):
            follower = self._piece(piece, line, listen, depth)

            def follow(
                before: Value, _: int, follower: DecisionList[Value] = follower
            ) -> DecisionList[Value]:
                return follower.then(
                    lambda after, at: always(joined([*before, *after]), at), self._lost
                )

            decided = decided.then(follow, self._lost)
        return decided.simplified()

    def _piece(
        self, piece: str | Variable, line: int, listen: ListenContext, depth: int
    ) -> DecisionList[Value]:
        if isinstance(piece, str):
            return always((piece,), line)
        name = piece.name
        fixed = {
            **{n: joined([text]) for n, text in listen.constants().items()},
            **dict(listen.fixed),
        }
        if name in fixed:
            return always(fixed[name], line)
        if name in self._texts:
            directive = self._texts[name]
            # nginx sets variables before it has looked into the ClientHello.
            early = attrs.evolve(listen, preread=False)
            return self.decide(directive.parameters[1], directive.number, early, depth + 1)
        if name in listen.facts():
            return always((piece,), line)
        defined = self._defined.get(name)
        if defined is None:
            raise InexpressibleError(
                f"{piece} has no counterpart; neither has what a regular expression captures"
            )
        if defined.name == "split_clients":
            return always((piece,), line)
        return self._of_block(defined, listen, depth)

    def _of_entry(self, entry: MapEntry, listen: ListenContext, depth: int) -> DecisionList[Value]:
        try:
            return self.decide(entry.text, entry.line, listen, depth + 1)
        except InexpressibleError as error:
            self._lost(entry.line, f"{entry.text}: {error}; these clients are closed")
            return always((), entry.line)

    def _of_block(
        self, directive: Directive, listen: ListenContext, depth: int
    ) -> DecisionList[Value]:
        if directive.name == "geo":
            if len(directive.parameters) > 1 and directive.value != "$remote_addr":
                raise InexpressibleError(f"{directive} is not about the client's address")
            # There, a variable in a value is just text.
            return by_network(directive, self._lost).then(
                lambda entry, line: always(joined([entry.text]), line), self._lost
            )
        name = directive.parameters[-1]
        if name not in self._maps:
            self._maps[name] = read_map(directive, self._lost)
        table = self._maps[name]
        source_value = value_of(table.source)

        def follow(value: Value, _: int) -> DecisionList[Value]:
            if any(isinstance(p, Variable) and p.name not in listen.facts() for p in value):
                raise InexpressibleError(f"a map of {shown(value)} has no counterpart")
            here = listen
            if len(source_value) == 1 and isinstance(source_value[0], Variable):
                # A variable has one value for a client, wherever it is used again.
                here = attrs.evolve(listen, fixed=(*listen.fixed, (source_value[0].name, value)))
            return look_up(table, value, listen.facts(), self._lost).then(
                lambda entry, _: self._of_entry(entry, here, depth), self._lost
            )

        return self.decide(table.source, directive.number, listen, depth + 1).then(
            follow, self._lost
        )
