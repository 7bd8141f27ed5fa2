"""The lines of ``allow_client =``: ``cn= ou= san= spiffe=``."""

from __future__ import annotations

from txmux.errors import OptionError
from txmux.rules.model.route import AllowedClient
from txmux.rules.problems import InvalidValueError, did_you_mean
from txmux.rules.reading.values import split_words
from txmux.wire.globs import Globs, names, option_globs

_SCHEME = "spiffe://"
_KINDS = ("cn", "ou", "san", "spiffe")
_FORM = "write for example 'cn=alice ou=ops'"


def allowed_client(text: str) -> AllowedClient:
    """Read one line of ``allow_client =``.

    Args:
        text: Words ``KIND=PATTERNS``; the patterns are those of `txmux.wire.globs.names`.

    Raises:
        InvalidValueError: All that is wrong with it.
    """
    wanted: dict[str, Globs] = {}
    messages = []
    for word in split_words(text):
        kind, equals, patterns = word.partition("=")
        if not equals:
            messages.append(f"{word!r} is not of the form KIND=PATTERN; {_FORM}")
        elif kind not in _KINDS:
            known = ", ".join(f"{one}=" for one in _KINDS)
            messages.append(f"unknown {kind!r}{did_you_mean(kind, _KINDS)} (possible are {known})")
        elif kind in wanted:
            messages.append(
                f"{kind!r} is given twice; put commas between the patterns, or give each a line of its own"
            )
        else:
            try:
                wanted[kind] = _patterns(kind, patterns)
            except OptionError as error:
                messages.append(str(error))
    if messages:
        raise InvalidValueError(*messages)
    return AllowedClient(text, wanted)


def _patterns(kind: str, text: str) -> Globs:
    if kind == "spiffe" and not text.startswith("~"):
        for pattern in text.split(","):
            if not pattern.strip().startswith(_SCHEME):
                raise OptionError(
                    kind, f"{pattern!r} is no SPIFFE ID; write {_SCHEME}TRUST-DOMAIN/PATH"
                )
    found = option_globs({kind: text.lower() if kind == "san" else text}, kind, names)
    assert found is not None  # noqa: S101 - it was given
    return found
