"""The lines of ``match =``: ``[not] MATCHER [option=value]…``."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from txmux.detection.registry import DuplicateMatcherError
from txmux.detection.transports import datagram_predicate, transports_of
from txmux.errors import OptionError
from txmux.interfaces import Transport
from txmux.rules.model import Alternative
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.reading.matchhints import misplaced, option_meant, unknown
from txmux.rules.reading.values import split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from txmux.interfaces import IProtocolMatcher, Predicate


def read_alternative(text: str, matchers: Mapping[str, IProtocolMatcher]) -> Alternative:
    """Read one line of ``match =``.

    Args:
        text: The line.
        matchers: The matchers there are, by name.

    Raises:
        InvalidValueError: All that is wrong with it.
    """
    name, *rest = split_words(text)
    negated = name == "not"
    if negated:
        if not rest:
            raise InvalidValueError("names no matcher after 'not'; write for example 'not tls'")
        name, *rest = rest
    try:
        matcher = matchers[name]
    except KeyError:
        message = unknown(name, rest, partial(_options_of, matchers), [*matchers])
        raise InvalidValueError(message) from None
    except DuplicateMatcherError as error:
        raise InvalidValueError(str(error)) from None
    options = _options(matcher, rest, matchers)
    predicate, datagrams, streams = _predicates(matcher, options)
    return Alternative(text, predicate, negated, datagrams, streams)


def _options(
    matcher: IProtocolMatcher, words: Sequence[str], matchers: Iterable[str]
) -> dict[str, str]:
    known = _option_names(matcher)
    takes = f"{matcher.name} takes {'=, '.join(known) + '=' if known else 'no options'}"
    wrong = misplaced(words, known, matchers)
    if wrong:
        raise InvalidValueError(f"{wrong} ({takes})")
    options: dict[str, str] = {}
    messages = []
    before = ""
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and (word.startswith(",") or before.endswith(",")):
            hint = "blanks beside a comma need quotes around the value"
            messages.append(f"{word!r} is not an option; {hint} ({takes})")
        elif not equals and before.partition("=")[0] in options:
            hint = f"several values have commas between them: '{before},{word}'"
            messages.append(f"{word!r} is not an option; {hint} ({takes})")
        elif not equals:
            meant = option_meant(matcher.name, word) if not before else ""
            hint = f"did you mean '{meant}'?" if meant else "write OPTION=VALUE"
            messages.append(f"{word!r} is not an option; {hint} ({takes})")
        elif name not in known:
            hint = did_you_mean(name, known)
            messages.append(f"unknown option {name!r}{hint} ({takes})")
        elif name in options:
            messages.append(f"option {name!r} is given twice; keep one")
        else:
            options[name] = value
        before = word
    if messages:
        raise InvalidValueError(*messages)
    return options


def _options_of(matchers: Mapping[str, IProtocolMatcher], name: str) -> list[str]:
    """Return the options of a matcher that is only asked for a hint: nothing if it is broken."""
    try:
        return _option_names(matchers[name])
    except InvalidValueError:
        return []


def _option_names(matcher: IProtocolMatcher) -> list[str]:
    try:
        names = [option.name for option in matcher.options]
    except Exception as error:
        raise _failed(matcher, error) from error
    for name in names:
        if not isinstance(name, str):
            raise _broken(matcher, f"the name of an option is {name!r}, not text")
    return names


def _predicates(
    matcher: IProtocolMatcher, options: Mapping[str, str]
) -> tuple[Predicate, Predicate | None, bool]:
    """Make the predicates for streams and for datagrams, and tell whether it is for streams at all."""
    try:
        predicate = matcher.predicate(options)
        longest = predicate.longest
        datagrams = datagram_predicate(matcher, options, predicate)
        longest_flow = 1 if datagrams is None else datagrams.longest
        streams = Transport.TCP in transports_of(matcher)
    except OptionError as error:
        raise InvalidValueError(f"{matcher.name} {error}") from None
    except Exception as error:
        raise _failed(matcher, error) from error
    for one, needs in ((predicate, longest), (datagrams or predicate, longest_flow)):
        if not callable(one):
            raise _broken(matcher, f"its predicate {one!r} cannot be called")
        if not isinstance(needs, int):
            raise _broken(matcher, f"its predicate's 'longest' is {needs!r}, not a whole number")
    return predicate, datagrams, streams


def _failed(matcher: IProtocolMatcher, error: Exception) -> InvalidValueError:
    return _broken(matcher, f"{type(error).__name__}: {error}")


def _broken(matcher: IProtocolMatcher, how: str) -> InvalidValueError:
    return InvalidValueError(
        f"the matcher {matcher.name!r} failed: {how}; tell its author, and do without it until then"
    )
