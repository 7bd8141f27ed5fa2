"""Words of the form ``NAME=VALUE``, and words without a value, in any order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.rules.problems import InvalidValueError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


def read_options(
    words: Iterable[str],
    readers: Mapping[str, Callable[[str], Any]],
    flags: Iterable[str] = (),
    *,
    of: str,
) -> dict[str, Any]:
    """Read words that each set one option.

    Args:
        words: As `txmux.rules.reading.values.split_words` gives them.
        readers: Reads the value of an option, by its name.
        flags: Options without a value.
        of: What the options belong to, for messages.

    Returns:
        The values that are given, by name; a flag's is true.

    Raises:
        InvalidValueError: All that is wrong with them.
    """
    known = (*readers, *flags)
    takes = f"{of} takes {', '.join([*(f'{name}=' for name in readers), *flags])}"
    found: dict[str, Any] = {}
    messages: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if name not in known:
            messages.append(f"unknown option {word!r}{did_you_mean(name, known)} ({takes})")
        elif name in found:
            messages.append(f"option {name!r} is given twice; keep one")
        elif bool(equals) is (name in flags):
            right = name if equals else f"{name}=VALUE"
            messages.append(f"{word!r} is not an option; did you mean {right!r}? ({takes})")
        else:
            try:
                found[name] = readers[name](value) if equals else True
            except InvalidValueError as error:
                found[name] = None
                messages += [f"{name}: {message}" for message in error.messages]
    if messages:
        raise InvalidValueError(*messages)
    return found
