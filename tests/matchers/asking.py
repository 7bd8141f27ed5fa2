from collections.abc import Callable

from txmux.detection.registry import datagram_predicate
from txmux.interfaces import Datagrams, IProtocolMatcher, Peeked, Predicate, Verdict
from txmux.testing import Decided, decided, facts, flow_decided


def verdicts_of(matcher: IProtocolMatcher) -> Callable[..., Decided]:
    return lambda data, **options: decided(matcher.predicate(options), data)


def facts_of(matcher: IProtocolMatcher) -> Callable[..., dict[str, str]]:
    return lambda data, **options: facts(matcher.predicate(options), Peeked(data))


def over_udp(matcher: IProtocolMatcher, **options: str) -> Predicate:
    predicate = datagram_predicate(matcher, options, matcher.predicate(options))
    assert predicate is not None
    return predicate


def datagram_verdicts_of(matcher: IProtocolMatcher) -> Callable[..., Verdict]:
    return lambda data, **options: flow_decided(over_udp(matcher, **options), [data]).verdict


def datagram_facts_of(matcher: IProtocolMatcher) -> Callable[..., dict[str, str]]:
    return lambda data, **options: facts(over_udp(matcher, **options), Datagrams((data,)))


def from_hex(*texts: str) -> tuple[bytes, ...]:
    return tuple(map(bytes.fromhex, texts))


def rows_from_hex(*rows: tuple[str, int]) -> tuple[tuple[bytes, int], ...]:
    return tuple((bytes.fromhex(text), at) for text, at in rows)
