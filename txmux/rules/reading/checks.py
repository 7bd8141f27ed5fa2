r"""The value of ``check``: ``http path=/health expect=2xx``, ``send="PING\r\n" expect=+PONG interval=5s``."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from txmux.errors import OptionError, joined
from txmux.matchers.payload import bytes_from_text
from txmux.rules.advice.words import near
from txmux.rules.model import Check, CheckKind, Ejection
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpointstrings import host_name
from txmux.rules.reading.values import (
    boolean,
    duration_text,
    of_form,
    positive_duration,
    read_options,
    split_words,
    whole_number,
)

_STATUS = re.compile(r"([1-5])(xx|[0-9][0-9])")
_METHOD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Z-]+")  # a token of RFC 9110, section 5.6.2


def check(text: str) -> Check:
    """Read a health check: its kind, or ``send=`` and ``expect=`` in its place; then options, split as by a shell."""
    first, *rest = split_words(text) or [""]
    kind: CheckKind | None = next((kind for kind in _WORDS if kind == first), None)
    if first.partition("=")[0] in KINDS["expect="]:
        kind, rest = "expect=", [first, *rest]
    if kind is None:
        message = f"must begin with {joined([*_WORDS, 'send=TEXT expect=TEXT'])}, not {first!r}"
        raise InvalidValueError(message).ask(near, first, _WORDS)
    path = next((word for word in rest if kind == "http" and word.startswith("/")), "")
    if path:
        raise InvalidValueError(f"{path!r} is not an option; write 'path={path}'")
    options = read_options(rest, {**KINDS[kind], **_COMMON}, of=_CALLED.get(kind, kind))
    expect = options.get("expect")
    if kind == "http" and expect is not None:
        options["statuses"] = options.pop("expect")
    if "send" in options and (
        beside := [name for name in ("method", "path", "host") if name in options]
    ):
        raise InvalidValueError(f"{beside[0]}: is a part of what send= says; write it there")
    if "sni" in options and not options.get("tls"):
        raise InvalidValueError("sni: is sent with TLS only; add tls=yes, or remove this")
    if kind == "expect=" and not expect:
        raise InvalidValueError("send= needs the answer to look for; add expect=TEXT")
    if kind == "dns" and not options.get("name"):
        raise InvalidValueError(
            "needs a name to ask for; write for example dns name=www.example.com"
        )
    return Check(kind, **options)


def ejection(text: str) -> Ejection | None:
    """Read the value of ``eject``, ``failures=3 within=10s for=10s`` or ``off``; ``None`` is never."""
    words = split_words(text)
    if words == ["off"]:
        return None
    if words in (["no"], ["none"], ["0"]):
        raise InvalidValueError(f"{text!r} is not an option; write off")
    if len(words) == 1 and text.isdecimal():
        raise InvalidValueError(f"{text!r} is not an option; write failures={text}")
    if "off" in words:
        raise InvalidValueError("off goes with nothing else; keep it alone, or remove it")
    readers = {
        "failures": whole_number(1, 1000),
        "within": positive_duration,
        "for": positive_duration,
        "unanswered": whole_number(0, 1000),
        "after": positive_duration,
    }
    options = read_options(words, readers, of="eject")
    if "after" in options and not options.get("unanswered"):
        message = "after= is how long clients get no byte; add unanswered=, as in unanswered=5"
        raise InvalidValueError(message)
    seconds = options.pop("for", Ejection().seconds)
    return Ejection(**options, seconds=seconds)


def ejection_text(eject: Ejection) -> str:
    within, seconds = duration_text(eject.within), duration_text(eject.seconds)
    return f"failures={eject.failures} within={within} for={seconds}"


def _method(text: str) -> str:
    right = text.upper()
    if not (text.isascii() and _METHOD.fullmatch(right)):
        message = f"{text!r} is not a method of HTTP; write for example GET, HEAD or OPTIONS"
        raise InvalidValueError(message)
    if right == "CONNECT":
        raise InvalidValueError(
            "CONNECT asks for a tunnel, and has no path; write for example GET, HEAD or OPTIONS"
        )
    if right != text:
        raise InvalidValueError(
            f"{text!r} is not a method of HTTP, which has capital letters; did you mean {right!r}?"
        )
    return text


_path = of_form(
    r"/[!-~]*", "is not a path of HTTP; write one such as /health, with %20 for a blank"
)
_host = of_form(r"[!-.0-~]+", "is not a host; write a name such as www.example.com")


def _statuses_of(text: str) -> range:
    first, dash, last = text.partition("-")
    low, high = _status(first), _status(last if dash else first)
    if dash and ("xx" in text or high.stop <= low.start):
        message = f"{text!r} is not a range of HTTP statuses; write for example 200-399"
        raise InvalidValueError(message)
    return range(low.start, high.stop)


def _status(text: str) -> range:
    match = _STATUS.fullmatch(text)
    if not match:
        raise InvalidValueError(f"{text!r} is not an HTTP status; write for example 2xx,3xx or 204")
    if match[2] == "xx":
        return range(int(match[1]) * 100, int(match[1]) * 100 + 100)
    return range(int(text), int(text) + 1)


def _text(text: str) -> bytes:
    try:
        data = bytes_from_text(text)
    except OptionError as error:
        raise InvalidValueError(str(error).partition(" ")[2]) from None
    if not data:
        raise InvalidValueError(r"is empty; write text, in which \r \n \t \0 \xNN have a meaning")
    return data


KINDS: Mapping[CheckKind, Mapping[str, Callable[[str], Any]]] = {
    "tcp": {},
    "http": {
        "method": _method,
        "path": _path,
        "host": _host,
        "send": _text,
        "expect": lambda text: tuple(_statuses_of(part.strip()) for part in text.split(",")),
    },
    "redis": {},
    "postgres": {},
    "mysql": {"user": of_form("[!-~]{1,32}", "is not a user of MySQL; write for example txmux")},
    "smtp": {},
    "ssh": {},
    "dns": {"name": host_name},
    "expect=": {"send": _text, "expect": _text},
}
_WORDS: Sequence[CheckKind] = [kind for kind in KINDS if kind != "expect="]
_CALLED: Mapping[CheckKind, str] = {"expect=": "a check by send= and expect="}
_COMMON: Mapping[str, Callable[[str], Any]] = {
    "port": whole_number(1, 65535),
    "tls": boolean,
    "sni": _host,
    "interval": positive_duration,
    "timeout": positive_duration,
    "rise": whole_number(1, 1000),
    "fall": whole_number(1, 1000),
}
