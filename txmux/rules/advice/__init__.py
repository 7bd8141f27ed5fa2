"""What the writer of rules may have meant: asked only where there is an error, and told all that it takes to know."""

from collections.abc import Callable, Mapping, Sequence

from txmux.rules.advice import values
from txmux.rules.advice.words import did_you_mean, with_hint

_HINTS: Mapping[str, Callable[..., str]] = {
    "boolean": values.boolean,
    "choice": values.choice,
    "connection_rate": values.connection_rate,
    "duration": values.duration,
    "rate": values.rate,
    "size": values.size,
    "whole_number": values.whole_number,
    "word": did_you_mean,
}
"""What returns a hint that is added to each message."""

_ANSWERS: Mapping[str, Callable[..., Sequence[str]]] = {
    "network": values.network,
    "no_limit": values.no_limit,
    "options": values.options,
    "word_first": values.word_first,
}
"""What returns other messages in place of those that it gets first."""


def advise(messages: tuple[str, ...], adviser: str, *facts: object) -> tuple[str, ...]:
    """Return what is wrong and what may have been meant; see `InvalidValueError.ask`."""
    if adviser in _ANSWERS:
        return tuple(_ANSWERS[adviser](messages, *facts))
    hint = _HINTS[adviser](*facts)
    return tuple(with_hint(message, hint) for message in messages)
