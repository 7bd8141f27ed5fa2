"""The lines of ``match =``: ``[not] MATCHER [option=value]…``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.detection.registry import DuplicateMatcherError
from txmux.errors import OptionError
from txmux.rules.model import Alternative
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.reading.values import split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.interfaces import IProtocolMatcher, Predicate

_SERVER_FIRST = frozenset({"mysql", "smtp", "imap", "pop3", "ftp", "vnc", "nats"})
"""Protocols in which the client waits for the server, so that nothing of it can be recognised."""


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
        raise InvalidValueError(_unknown(name, matchers)) from None
    except DuplicateMatcherError as error:
        raise InvalidValueError(str(error)) from None
    options = _options(matcher, rest)
    return Alternative(text, _predicate(matcher, options), negated)


def _unknown(name: str, known: Iterable[str]) -> str:
    if name.casefold() in _SERVER_FIRST:
        hint = (
            "; its clients wait for the server to speak, so no byte tells them: "
            "name its backend with 'silent =' in [listen]"
        )
    elif "," in name:
        hint = "; write one matcher a line, without commas"
    else:
        hint = did_you_mean(name, known)
    return f"unknown matcher {name!r}{hint} (there are {', '.join(sorted(known)) or 'none'})"


def _options(matcher: IProtocolMatcher, words: Iterable[str]) -> dict[str, str]:
    known = _option_names(matcher)
    takes = f"{matcher.name} takes {', '.join(f'{name}=' for name in known) or 'no options'}"
    options: dict[str, str] = {}
    messages = []
    before = ""
    for word in words:
        name, equals, value = word.partition("=")
        if not equals and (word.startswith(",") or before.endswith(",")):
            hint = "no blank may stand beside a comma, unless the value is in quotes"
            messages.append(f"{word!r} is not an option; {hint} ({takes})")
        elif not equals:
            messages.append(f"{word!r} is not an option; write OPTION=VALUE ({takes})")
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


def _option_names(matcher: IProtocolMatcher) -> list[str]:
    try:
        names = [option.name for option in matcher.options]
    except Exception as error:
        raise _failed(matcher, error) from error
    for name in names:
        if not isinstance(name, str):
            raise _broken(matcher, f"the name of an option is {name!r}, not text")
    return names


def _predicate(matcher: IProtocolMatcher, options: Mapping[str, str]) -> Predicate:
    try:
        predicate = matcher.predicate(options)
        longest = predicate.longest
    except OptionError as error:
        raise InvalidValueError(f"{matcher.name} {error}") from None
    except Exception as error:
        raise _failed(matcher, error) from error
    if not callable(predicate):
        raise _broken(matcher, f"its predicate {predicate!r} cannot be called")
    if not isinstance(longest, int):
        raise _broken(matcher, f"its predicate's 'longest' is {longest!r}, not a whole number")
    return predicate


def _failed(matcher: IProtocolMatcher, error: Exception) -> InvalidValueError:
    return _broken(matcher, f"{type(error).__name__}: {error}")


def _broken(matcher: IProtocolMatcher, how: str) -> InvalidValueError:
    return InvalidValueError(
        f"the matcher {matcher.name!r} failed: {how}; tell its author, and do without it until then"
    )
