"""All ``match =`` lines that are tried: each matcher plain, and with each of its options."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterator, Mapping

from tests.matchers.all_samples import all_samples, for_streams
from txmux.detection.registry import datagram_predicate, installed_matchers, transports_of
from txmux.interfaces import IProtocolMatcher, Predicate, Transport
from txmux.testing import with_example


def _lines(matcher: IProtocolMatcher) -> Iterator[tuple[str, Mapping[str, str]]]:
    for name in ("", *(option.name for option in matcher.options)):
        options = with_example(matcher, name)
        if options is not None:
            words = (f"{key}={value}" for key, value in options.items())
            yield " ".join((matcher.name, *words)), options


@functools.cache
def of_streams() -> dict[str, Predicate]:
    return {
        line: matcher.predicate(options)
        for matcher in for_streams().values()
        for line, options in _lines(matcher)
    }


@functools.cache
def of_datagrams() -> dict[str, Predicate]:
    found = {}
    for matcher in installed_matchers().values():
        if Transport.UDP in transports_of(matcher):
            for line, options in _lines(matcher):
                predicate = datagram_predicate(matcher, options, matcher.predicate(options))
                if predicate is not None:
                    found[line] = predicate
    return found


def asked(predicates: Mapping[str, Predicate], data: bytes) -> tuple[Predicate, bytes]:
    """Take an input apart: the line, of which chance may have made another one, and what is asked about."""
    line, _, rest = data.partition(b"\n")
    known = predicates.get(line.decode("latin-1"))
    if known is None:
        known = [*predicates.values()][zlib.crc32(line) % len(predicates)]
    return known, rest


def samples_of(
    predicates: Mapping[str, Predicate], attribute: str
) -> Iterator[tuple[bytes, bytes | tuple[bytes, ...]]]:
    """Give each line with the samples of its matcher; one without any has an empty one."""
    samples = all_samples(attribute)
    for line in predicates:
        for sample in samples.get(line.partition(" ")[0], ()) or (b"",):
            yield line.encode("latin-1") + b"\n", sample
