"""The lines of ``match =``: ``[not] MATCHER [option=value]…``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txmux.errors import OptionError
from txmux.rules.model import Alternative
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.values import split_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from txmux.interfaces import IProtocolMatcher, Predicate

__all__ = ["read_alternative"]

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
    matcher = matchers.get(name)
    if matcher is None:
        raise InvalidValueError(_unknown(name, matchers))
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
    known = [option.name for option in matcher.options]
    takes = f"{matcher.name} takes {', '.join(f'{name}=' for name in known) or 'no options'}"
    options: dict[str, str] = {}
    messages = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            messages.append(f"{word!r} is no option; write OPTION=VALUE ({takes})")
        elif name not in known:
            hint = did_you_mean(name, known)
            messages.append(f"unknown option {name!r}{hint} ({takes})")
        elif name in options:
            messages.append(f"option {name!r} is given twice; keep one")
        else:
            options[name] = value
    if messages:
        raise InvalidValueError(*messages)
    return options


def _predicate(matcher: IProtocolMatcher, options: Mapping[str, str]) -> Predicate:
    try:
        return matcher.predicate(options)
    except OptionError as error:
        raise InvalidValueError(f"{matcher.name} {error}") from None
    except Exception as error:
        raise InvalidValueError(
            f"the matcher {matcher.name!r} failed: {type(error).__name__}: {error}; "
            "tell its author, and do without it until then"
        ) from error
