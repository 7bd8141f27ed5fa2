"""The lines of ``match =``: ``[not] MATCHER [option=value]…``."""

from collections.abc import Mapping, Sequence

from txmux.detection.plan import optional_attribute
from txmux.detection.registry import UnusableMatcherError, datagram_predicate, transports_of
from txmux.errors import PLUGIN_ERRORS, OptionError
from txmux.interfaces import IProtocolMatcher, Predicate, Transport
from txmux.rules.advice.words import near_unknown
from txmux.rules.model import Alternative, Section
from txmux.rules.model.section import NOTHING_MORE
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.values import positive_duration, split_words


def read_alternative(
    text: str,
    matchers: Mapping[str, IProtocolMatcher],
    listeners: Mapping[str, Sequence[Section]] = NOTHING_MORE,
) -> Alternative:
    """Read one line of ``match =``; the sections of listeners are for messages."""
    name, *rest = split_words(text) or [""]
    negated = name == "not"
    if negated:
        if not rest:
            raise InvalidValueError("names no matcher after 'not'; write for example 'not tls'")
        name, *rest = rest
    try:
        matcher = matchers[name]
    except KeyError:
        from txmux.rules.advice.matching import matcher as advise  # noqa: PLC0415 - only for errors

        error = InvalidValueError(f"unknown matcher {name!r}")
        raise error.ask(advise, name, matchers, listeners) from None
    except UnusableMatcherError as error:
        raise InvalidValueError(str(error)) from None
    options = _options(matcher, rest)
    predicate, datagrams, streams = _predicates(matcher, options)
    silent_after = getattr(predicate, "silent_after", None)
    if silent_after is None:
        return Alternative(text, predicate, negated, datagrams, streams)
    if negated:
        message = "every client that says something is not silent; write 'any', or what it says"
        raise InvalidValueError(message)
    seconds = 0.0
    if silent_after:
        try:
            seconds = positive_duration(silent_after)
        except InvalidValueError as error:
            raise InvalidValueError(f"{name} after: {error}") from None
    return Alternative(text, predicate, negated, datagrams, streams, seconds)


def _options(matcher: IProtocolMatcher, words: Sequence[str]) -> dict[str, str]:
    names = _option_names(matcher)
    options: dict[str, str] = {}
    wrong = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in names or name in options:
            wrong.append(word)
        else:
            options[name] = value
    if wrong:
        takes = f"{matcher.name} takes {'=, '.join(names) + '=' if names else 'no options'}"
        messages = [
            f"option {name!r} is given twice; keep one"
            if name in names
            else f"unknown option {name!r} ({takes})"
            for name, equals, _ in (word.partition("=") for word in wrong)
            if equals
        ]
        if plain := " ".join(word for word in wrong if "=" not in word):
            advice = "write OPTION=VALUE, a value with blanks in quotes" if names else "remove it"
            messages.append(f"{plain!r} is not an option; {advice} ({takes})")
        raise InvalidValueError(*messages).ask(near_unknown, names)
    return options


def _option_names(matcher: IProtocolMatcher) -> list[str]:
    try:
        names = [option.name for option in matcher.options]
    except PLUGIN_ERRORS as error:
        raise _failed(matcher, error) from error
    for name in names:
        if not isinstance(name, str):
            raise _broken(matcher, f"the name of an option is {name!r}, not text")
    return names


def _predicates(
    matcher: IProtocolMatcher, options: Mapping[str, str]
) -> tuple[Predicate, Predicate | None, bool]:
    """Make the predicates for streams and for datagrams; returns also whether it is for streams at all."""
    try:
        predicate = matcher.predicate(options)
        longest = predicate.longest
        over = transports_of(matcher)
        has_datagrams = Transport.UDP in over
        datagrams = datagram_predicate(matcher, options, predicate) if has_datagrams else None
        longest_flow = 1 if datagrams is None else datagrams.longest
    except OptionError as error:
        empty = error.option is not None and options.get(error.option) == ""
        message = f"{error.option}= has no value" if empty else f"{matcher.name} {error}"
        raise InvalidValueError(message) from None
    except PLUGIN_ERRORS as error:
        raise _failed(matcher, error) from error
    for one, needs in ((predicate, longest), (datagrams or predicate, longest_flow)):
        if not callable(one):
            raise _broken(matcher, f"its predicate {one!r} cannot be called")
        if not isinstance(needs, int):
            raise _broken(matcher, f"its predicate's 'longest' is {needs!r}, not a whole number")
        first = optional_attribute(one, "first_bytes")
        if first is not None and not isinstance(first, frozenset):
            raise _broken(matcher, f"its predicate's 'first_bytes' is {first!r}, not a frozenset")
    return predicate, datagrams, Transport.TCP in over


def _failed(matcher: IProtocolMatcher, error: BaseException) -> InvalidValueError:
    return _broken(matcher, f"{type(error).__name__}: {error}")


def _broken(matcher: IProtocolMatcher, how: str) -> InvalidValueError:
    return InvalidValueError(
        f"the matcher {matcher.name!r} failed: {how}; report it to its author, and do without it until then"
    )
