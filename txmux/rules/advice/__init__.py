"""What the writer of rules may have meant: asked only where there is an error, and told all that it takes to know."""

from collections.abc import Callable, Mapping, Sequence

from txmux.rules.advice import endpoints, matching, values, words

_HINTS: Mapping[str, Callable[..., str]] = {
    one.__name__: one
    for one in (
        endpoints.proxy, values.boolean, values.choice, values.connection_rate, values.duration, values.rate, values.size, values.whole_number,
        words.did_you_mean,
    )
}  # fmt: skip
"""What returns a hint that is added to each message."""

_ANSWERS: Mapping[str, Callable[..., Sequence[str]]] = {
    one.__name__: one
    for one in (
        endpoints.after_server, endpoints.listening, endpoints.outcome, endpoints.place, endpoints.server,
        matching.matcher, matching.matcher_options, values.network, values.no_limit, values.options,
        words.instead_of_list, words.word_first,
    )
}  # fmt: skip
"""What gets the messages first, and returns others in their place."""


def advise(messages: Sequence[str], adviser: str, *facts: object) -> tuple[str, ...]:
    """Return what is wrong and what may have been meant; see `InvalidValueError.ask`."""
    if adviser in _ANSWERS:
        return tuple(_ANSWERS[adviser](messages, *facts))
    hint = _HINTS[adviser](*facts)
    return tuple(words.with_hint(message, hint) for message in messages)
