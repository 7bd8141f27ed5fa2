"""Conditions that txmux can express: alternatives, each with one matcher and networks."""

from collections.abc import Iterable, Mapping
from functools import reduce
from itertools import product

import attrs

from txmux.errors import MuxError
from txmux.rules.model.networks import IPNetwork
from txmux.wire.globs import names
from txmux_convert.matching import match_line

Networks = IPNetwork | str
"""A network, or ``@FILE`` for those of a file."""

Hello = tuple[tuple[str, str], ...]
"""Options of ``tls``: server names, and the negotiated protocol."""

SILENT = "silent"
"""In place of a matcher: the client is silent. Routes cannot match that, only ``silent`` of a listener."""

VERIFIED = "verified"
"""Marks a valid certificate, or none, where invalid ones are let in, too; ``client_cert`` has no word for that."""

_MOST_TERMS = 10_000
_TOKEN = frozenset(range(ord("A"), ord("Z") + 1))
_FIRST_BYTES: Mapping[str, frozenset[int]] = {
    "http": _TOKEN,
    "rdp": frozenset({0x03}),
    "tls": frozenset({0x16, *range(0x80, 0x100)}),
}
"""First bytes of clients; in an HTTP method, HAProxy takes capital letters only."""


_NO_NAMES = frozenset({"alpn", "hex", "offset", "pattern", "within"})
"""Options whose values cannot be compared: of the protocols of ALPN a client offers several."""


class InexpressibleError(MuxError):
    """txmux cannot express a condition; the message says which part of it."""


@attrs.frozen
class Term:
    """A requirement on clients.

    Attributes:
        matcher: The matcher of their first bytes, or `SILENT`; empty for any.
        options: Options of the matcher.
        allowed: The networks they must be in; ``None`` for any.
        excluded: The networks they must not be in.
        hello: Options of their ClientHello, if the matcher is about what is inside terminated TLS.
        certificate: Words of ``client_cert`` for their certificate.
    """

    matcher: str = ""
    options: tuple[tuple[str, str], ...] = ()
    allowed: frozenset[Networks] | None = None
    excluded: frozenset[Networks] = frozenset()
    hello: Hello = ()
    certificate: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return match_line(self.matcher or "any", self.options)


Condition = tuple[Term, ...]
"""Alternatives; one is enough."""

ALWAYS: Condition = (Term(),)
NEVER: Condition = ()


def of_networks_only(condition: Condition) -> bool:
    return not any(term.matcher or term.hello or term.certificate for term in condition)


def conjunction(first: Condition, second: Condition) -> Condition:
    """Return the condition that both are met; two matchers at once are an `InexpressibleError`."""
    if ALWAYS in (first, second):
        return second if first == ALWAYS else first
    if len(first) * len(second) > _MOST_TERMS:
        raise InexpressibleError("has too many combinations")
    # A term narrower than one of the other side stays as it is: it may contradict the rest of that side.
    narrower = [
        [term for term in some if any(_is_wider(other, term) for other in others)]
        for some, others in ((first, second), (second, first))
    ]
    left = (
        [t for t in some if t not in own]
        for some, own in zip((first, second), narrower, strict=True)
    )
    pairs = (_both(a, b) for a, b in product(*left))
    return tuple(
        dict.fromkeys(term for term in (*narrower[0], *narrower[1], *pairs) if term is not None)
    )


def _is_wider(a: Term, b: Term) -> bool:
    """Return whether all clients of `b` meet `a`, as far as that is easily seen."""
    return (
        a.matcher in {"", b.matcher}
        and set(a.options) <= set(b.options)
        and a.allowed in {None, b.allowed}
        and a.excluded <= b.excluded
        and a.hello == b.hello
        and a.certificate <= b.certificate
    )


def negated(condition: Condition) -> Condition:
    """Return the opposite of a condition of networks."""
    return reduce(conjunction, map(_negated, condition), ALWAYS)


def _negated(term: Term) -> Condition:
    opposite: list[Term] = []
    if term.allowed is not None:
        opposite.append(Term(excluded=term.allowed))
    if term.excluded:
        opposite.append(Term(allowed=term.excluded))
    return tuple(opposite)


def _both(a: Term, b: Term) -> Term | None:
    allowed = common(a.allowed, b.allowed)
    if allowed is not None and not allowed:
        return None
    excluded = a.excluded | b.excluded
    if allowed is not None and all(_is_within(network, excluded) for network in allowed):
        return None
    says, hello = _common_term(a, b), both_hellos(a.hello, b.hello)
    if says is None or hello is None:
        return None
    certificate = a.certificate | b.certificate
    return attrs.evolve(
        says, allowed=allowed, excluded=excluded, hello=hello, certificate=certificate
    )


def both_hellos(a: Hello, b: Hello) -> Hello | None:
    """Return the options of hellos that fit both; ``None`` if none does."""
    options = {**dict(a), **dict(b)}
    for name, value in a:
        if options[name] == value:
            continue
        # Only one protocol is negotiated, while a name may fit several patterns.
        left = common_names(value, options[name]) if name == "sni" else ""
        if left is None:
            raise InexpressibleError(f"asks for the names {value} and {options[name]} at once")
        if not left:
            return None
        options[name] = left
    return tuple(sorted(options.items()))


def common(
    a: frozenset[Networks] | None, b: frozenset[Networks] | None
) -> frozenset[Networks] | None:
    """Return the networks that are in both; ``None`` is all of them.

    Raises:
        InexpressibleError: One of them is a file, which is not read here.
    """
    if a is None or b is None:
        return b if a is None else a
    files = {n for n in a | b if isinstance(n, str)}
    if a != b and files:
        raise InexpressibleError(
            f"asks for {', '.join(sorted(files))} and for other networks at once"
        )
    # Of two networks, one is inside the other, or they have nothing in common.
    return frozenset({n for n in a if _is_within(n, b)} | {n for n in b if _is_within(n, a)})


def _is_within(network: Networks, others: Iterable[Networks]) -> bool:
    if isinstance(network, str):
        return network in others
    return any(
        not isinstance(other, str)
        and network.version == other.version
        and network.network_address in other
        and network.prefixlen >= other.prefixlen
        for other in others
    )


def _common_term(a: Term, b: Term) -> Term | None:
    """Return the matcher and options that meet both; ``None`` if no client can meet both."""
    if (a.matcher, a.options) == (b.matcher, b.options):
        return a
    for first, second in ((a, b), (b, a)):
        if first.matcher == SILENT and second.matcher:
            return None
        if first.matcher in {"", "any"}:
            return second if second.matcher else first
    if a.matcher == b.matcher:
        options = _merged(dict(a.options), dict(b.options))
        if options is not None:
            return attrs.evolve(a, options=tuple(options.items())) if options else None
        if a.matcher == "payload":
            return _longer(a, b)
    elif not _first_bytes(a) & _first_bytes(b):
        return None
    raise InexpressibleError(f"asks for {a} and {b} at once, and a line of match has one matcher")


def _merged(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str] | None:
    """Return options that meet both: empty if no client does, ``None`` if no options express it."""
    options = {**a, **b}
    for name in a.keys() & b.keys():
        if a[name] == b[name]:
            continue
        if name in _NO_NAMES:
            return None
        left = common_names(a[name], b[name])
        if not left:
            return None if left is None else {}
        options[name] = left
    return None if a.get("offset") != b.get("offset") else options


def _longer(a: Term, b: Term) -> Term | None:
    """Return the payload that begins with the other one, at the same offset; ``None`` if they differ."""
    first, second = dict(a.options), dict(b.options)
    if first.get("offset") != second.get("offset"):
        raise InexpressibleError(f"asks for {a} and {b} at once, and a line has one place")
    if first["hex"].startswith(second["hex"]):
        return a
    return b if second["hex"].startswith(first["hex"]) else None


def _first_bytes(term: Term) -> frozenset[int]:
    options = dict(term.options)
    if term.matcher == "payload" and "offset" not in options:
        return frozenset(bytes.fromhex(options["hex"])[:1])
    return _FIRST_BYTES.get(term.matcher, frozenset(range(0x100)))


_WILD = frozenset("*?")


def common_names(a: str, b: str) -> str | None:
    """Return patterns for the names that fit both lists: empty if none does, ``None`` if no patterns express it."""
    patterns: list[str] = []
    for first, second in product(_patterns(a), _patterns(b)):
        common = _common_part(first, second)
        if common is None:
            return None
        patterns += common
    if any(pattern.startswith("~") for pattern in patterns) and len(patterns) > 1:
        return None
    return ",".join(dict.fromkeys(patterns))


def _patterns(text: str) -> list[str]:
    if text.startswith("~"):
        return [text]
    # A leading dot stands for the name itself and those below it.
    items = [
        (item[1:], f"*{item}") if item.startswith(".") else (item,) for item in text.split(",")
    ]
    return [pattern for item in items for pattern in item]


def _common_part(a: str, b: str) -> list[str] | None:
    if b in {a, "*"}:
        return [a]
    if a == "*":
        return [b]
    for name, pattern in ((a, b), (b, a)):
        if not name.startswith("~") and not set(name) & _WILD:
            return [name] if names(pattern).matches(name) else []
    if a.startswith("~") or b.startswith("~") or "?" in a + b:
        return None
    first, second = a.split("*"), b.split("*")
    return _around(first, second) if len(first) == len(second) == 2 else None


def _around(first: list[str], second: list[str]) -> list[str]:
    """Intersect two patterns with one ``*`` each."""
    heads, tails = (sorted({a, b}, key=len) for a, b in zip(first, second, strict=True))
    head, tail = heads[-1], tails[-1]
    if not head.startswith(heads[0]) or not tail.endswith(tails[0]):
        return []
    # Head and tail may overlap, but not those of the same pattern.
    least = max(len(first[0]) + len(first[1]), len(second[0]) + len(second[1]))
    shared = [
        head + tail[size:]
        for size in range(1, min(len(head), len(tail)) + 1)
        if head.endswith(tail[:size]) and len(head) + len(tail) - size >= least
    ]
    return [f"{head}*{tail}", *shared]
