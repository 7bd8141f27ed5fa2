"""The kinds of values that keys take: each function reads one text, or raises `InvalidValueError`."""

import ipaddress
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeAlias

import attrs

from txmux.classes import frozen
from txmux.errors import joined
from txmux.rules.advice.words import near, near_unknown
from txmux.rules.model import IPNetwork, Logged, Rate
from txmux.rules.problems import InvalidValueError


def read_options(
    words: Iterable[str],
    readers: Mapping[str, Callable[[str], Any]],
    flags: Iterable[str] = (),
    *,
    of: str,
) -> dict[str, Any]:
    """Read words that each set one option; flags have no value, and are true. `of` is for messages."""
    names = (*readers, *flags)
    takes = f"{of} takes {', '.join([*(f'{name}=' for name in readers), *flags])}"
    values: dict[str, Any] = {}
    messages: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if name not in names:
            messages.append(f"unknown option {word!r} ({takes})")
        elif name in values:
            messages.append(f"option {name!r} is given twice; keep one")
        elif bool(equals) is (name in flags):
            right = name if equals else f"{name}=VALUE"
            messages.append(f"{word!r} is not an option; did you mean {right!r}? ({takes})")
        else:
            try:
                values[name] = readers[name](value) if equals else True
            except InvalidValueError as error:
                values[name] = None
                messages += [f"{name}: {message}" for message in error.messages]
    if messages:
        raise InvalidValueError(*messages).ask(near_unknown, names)
    return values


NAME = re.compile(r"[A-Za-z0-9._-]+")

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s|m|h|d)")
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}  # fmt: skip
_DURATION_FORMS = "write a duration as 250ms, 5s, 1.5s, 10m, 1h or 2d"
SECONDS_FORMS = "write a duration as 5s, 10m, 1h or 2d"
"""For what takes no less than a second, or no parts of one."""
_LONGEST_DAYS = 3650

_SIZE = re.compile(r"([0-9]{1,12})(KiB|MiB|GiB)?")
_BYTES = {None: 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_COUNT_RATE = re.compile(r"([0-9]{1,6})/([smh])")

_FASTEST = 1024 * _BYTES["GiB"]
_LONGEST_SOCKET_PATH = 107

# A quoted text, or a backslash and what follows it; `escaped` is such a backslash outside quotes that stays.
_UNQUOTED = re.compile(r"[!#-&(-\[\]-~ \t\r\n]*")  # printable ASCII without quotes and backslashes
_QUOTED = re.compile(r"""'[^']*'|"(?:\\.|[^"\\])*"|\\(?P<escaped>[^ \t'"\\]|$)|\\.""")


def duration(text: str, forms: str = _DURATION_FORMS) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise InvalidValueError(f"{text!r} is not a duration; {forms}")
    seconds = float(Decimal(match[1]) * _SECONDS[match[2]])
    if seconds > _LONGEST_DAYS * 86400:
        raise InvalidValueError(f"{text!r} is too long; at most {_LONGEST_DAYS}d")
    return seconds


def positive_duration(text: str) -> float:
    seconds = 0 if text == "0" else duration(text)
    if not seconds:
        longest = f"the longest is {_LONGEST_DAYS}d"
        raise InvalidValueError(f"must be more than 0; {_DURATION_FORMS}; {longest}")
    return seconds


def positive_duration_or_none(text: str) -> float | None:
    try:
        return None if text == "none" else positive_duration(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"{error}; for no limit, write none") from None


def size(low: int, high: int) -> Callable[[str], int]:
    """Make the reader of a size in bytes; the greatest is a power of 1024 times a whole number."""

    def read(text: str) -> int:
        match = _SIZE.fullmatch(text)
        if match is None:
            message = f"{text!r} is not a size; write a number of bytes from {_size_text(low)} to {_size_text(high)}"
            raise InvalidValueError(message)
        number = int(match[1]) * _BYTES[match[2]]
        if not low <= number <= high:
            message = f"{text!r} is out of range; from {_size_text(low)} to {_size_text(high)}"
            raise InvalidValueError(message)
        return number

    return read


def _size_text(number: int) -> str:
    for unit in ("GiB", "MiB", "KiB"):
        if number and number % _BYTES[unit] == 0:
            return f"{number // _BYTES[unit]}{unit}"
    return str(number)


def rate(text: str) -> int:
    amount, slash, unit = text.partition("/")
    match = _SIZE.fullmatch(amount)
    if not match or slash + unit != "/s":
        message = f"{text!r} is not a rate; write bytes per second as 500000/s, 512KiB/s or 10MiB/s"
        raise InvalidValueError(message)
    number = int(match[1]) * _BYTES[match[2]]
    if not 1 <= number <= _FASTEST:
        raise InvalidValueError(f"{text!r} is out of range; from 1/s to {_size_text(_FASTEST)}/s")
    return number


def rate_text(number: int | None) -> str | None:
    return None if number is None else f"{_size_text(number)}/s"


def connection_rate(text: str) -> Rate:
    """Read how often something may happen: ``20/s burst=40``. Without a burst it is the number that is written."""
    words = split_words(text)
    match = _COUNT_RATE.fullmatch(words[0]) if words else None
    if match is None or not int(match[1]):
        message = f"{text!r} is not a rate of connections; write it as 20/s, 20/s burst=40, 100/m or 1000/h"
        raise InvalidValueError(message)
    number = int(match[1])
    burst = whole_number(1, 1_000_000)
    given = read_options(words[1:], {"burst": burst}, of="a rate")
    return Rate(number / float(_SECONDS[match[2]]), given.get("burst", number))


def protocol_name(text: str) -> str:
    """Read the name of a protocol in ALPN (RFC 7301, section 3.1: 1 to 255 bytes)."""
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > 255:
        message = f"{text!r} is not a protocol of ALPN; write for example h2 or http/1.1"
        raise InvalidValueError(message)
    return text


def whole_number(low: int, high: int, what: str = "") -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text) if re.fullmatch("[0-9]{1,12}", text) else -1
        if not low <= number <= high:
            subject = f"{what} must be" if what else "must be"
            raise InvalidValueError(f"{subject} a whole number from {low} to {high}, not {text!r}")
        return number

    return read


def boolean(text: str) -> bool:
    if text in {"yes", "no"}:
        return text == "yes"
    raise InvalidValueError(f"must be yes or no, not {text!r}").ask(_near, text, ("yes", "no"))


def linux_only(text: str) -> bool:
    enabled = boolean(text)
    if enabled and sys.platform != "linux":
        raise InvalidValueError("needs Linux; remove it")
    return enabled


def logged(text: str) -> Logged:
    if text == "errors":
        return "errors"
    if text in {"yes", "no"}:
        return text == "yes"
    message = f"must be yes, no or errors, not {text!r}"
    raise InvalidValueError(message).ask(_near, text, ("yes", "no", "errors"))


SWITCH_WORDS = frozenset({"yes", "on", "true", "no", "off", "false"})
"""What people write for yes and no."""


def _near(messages: Sequence[str], text: str, known: Iterable[str]) -> Sequence[str]:
    # Of the letters of 'on', 'no' is made.
    return messages if text.casefold() in SWITCH_WORDS else near(messages, text, known)


def choice(*choices: str) -> Callable[[str], str]:
    """Make the reader of one of several words."""

    def read(text: str) -> str:
        if text in choices:
            return text
        message = f"must be {joined(choices)}, not {text!r}"
        raise InvalidValueError(message).ask(_near, text, choices)

    return read


def of_form(pattern: str, otherwise: str) -> Callable[[str], str]:
    """Make the reader of texts that match a pattern; `otherwise` follows the text in the message."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise InvalidValueError(f"{text!r} {otherwise}")
        return text

    return read


def network(text: str) -> IPNetwork:
    if "%" in text:  # `ipaddress` would take it and forget it
        raise InvalidValueError(f"{text!r}: leave out its zone, '%' and what follows")
    try:
        ip_network = ipaddress.ip_network(text)
    except ValueError:
        raise no_network(text) from None
    mapped = getattr(ip_network.network_address, "ipv4_mapped", None)
    if mapped is not None:
        message = f"{text!r} is IPv4 inside IPv6; clients are compared as IPv4: write '{mapped}/{ip_network.prefixlen - 96}'"
        raise InvalidValueError(message)
    return ip_network


def no_network(text: str) -> InvalidValueError:
    message = f"{text!r} is not a network; write it as 10.0.0.0/8, 192.0.2.1 or 2001:db8::/32"
    with suppress(ValueError):
        inside = ipaddress.ip_interface(text)
        its = f"'{inside.network}' for the network or '{inside.ip}' for the one address"
        message = f"{text!r} is an address inside a network; write {its}"
    return InvalidValueError(message)


def file_path(text: str) -> Path:
    if "\0" in text:
        raise InvalidValueError(f"{text!r} is not a path: it holds a NUL character")
    return Path(text)


def socket_path(text: str) -> Path:
    """Read the path of a UNIX socket, which has to fit into the field ``sun_path`` (108 bytes, the last one NUL)."""
    length = len(text.encode("utf-8", "surrogatepass"))
    if length > _LONGEST_SOCKET_PATH:
        raise InvalidValueError(
            f"is {length} bytes long; the path of a UNIX socket has at most {_LONGEST_SOCKET_PATH}"
        )
    return file_path(text)


def split_words(text: str) -> list[str]:
    r"""Split a line into words as a shell would, with quotes, and without comments or substitutions.

    Unlike in a shell, a backslash outside quotes escapes only blanks, quotes and backslashes and otherwise stays,
    so that ``pattern=^\d+\r\n`` needs no quotes.
    """
    if _UNQUOTED.fullmatch(text):
        return text.split()
    escaped = _QUOTED.sub(
        lambda found: f"\\{found[0]}" if found["escaped"] is not None else found[0], text
    )
    try:
        return shlex.split(escaped)
    except ValueError:
        message = "a quote is not closed; close it, or write \\' or \\\" for the character itself"
        raise InvalidValueError(message) from None


def words_if_right(text: str) -> list[str]:
    """Split a line as `split_words`; there are no words in one with an error, which is reported where it is read."""
    with suppress(InvalidValueError):
        return split_words(text)
    return []


def written(value: object) -> str | None:
    """Write a value of a model as in a rules file; ``None`` is nothing."""
    if value is None or value == ():
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return duration_text(value)
    return str(value.value if isinstance(value, Enum) else value)


def duration_text(seconds: float) -> str:
    """Write a duration in the largest unit of which it is a whole number."""
    for unit in ("d", "h", "m"):
        number, rest = divmod(seconds, float(_SECONDS[unit]))
        if number and not rest:
            return f"{number:.0f}{unit}"
    return f"{Decimal(str(seconds)).normalize():f}s"


Opens: TypeAlias = Literal[
    "", "worker", "worker-itself", "worker-log", "sent", "sent-folder", "supervisor"
]
"""Which process opens the file of a key: workers too, without the helper, or to write to it; or the supervisor, which sends workers what is in it, also what is right in it if it is a folder; or alone."""


@frozen
class KeyFiles:
    """The files that the value of a key names.

    Attributes:
        opens: Which process opens them; none if there are none.
        is_secret: Whether they hold a secret, at least those of them with a private key.
        reader: What reads one of them, as ``module:function``, and raises `MuxError` if it cannot be used; empty if more
            than the file decides that.
        watcher: What the supervisor watches it by for workers, as ``module:class``, a `txmux.net.watched.WatchedFiles` that is made of
            the name of the part and the path; empty if it uses the file itself.
        is_needed: Whether nothing serves without what that reads.
        suffixes: How their names end, in a folder that it names.
    """

    opens: Opens = ""
    is_secret: bool = False
    reader: str = ""
    watcher: str = ""
    is_needed: bool = False
    suffixes: tuple[str, ...] = ()


@frozen
class ValueKind:
    """A kind of values.

    Attributes:
        read: Reads one item, or raises `InvalidValueError`.
        shape: How it is written, for the reference page.
        takes: One value, one item a line, or items separated by commas or line ends.
        collect: Makes one value of several items.
        in_context: Whether `read` takes the `Reading` before the text.
        bounds: The least and the greatest number that is accepted, if it is one.
        write: Writes the result of `read` as in a rules file; ``None`` writes nothing.
        word: A word that, before the first item of a list, stands before all of them.
        paths: Returns the paths of the files in a whole value; ``None`` where a value names none.
    """

    read: Callable[..., Any]
    shape: str
    takes: Literal["one", "lines", "list"] = "one"
    collect: Callable[[Iterable[Any]], Any] = tuple
    in_context: bool = False
    bounds: tuple[int, int] | None = None
    write: Callable[[Any], str | None] = written
    word: str = ""
    paths: Callable[[Any], Iterable[Path | None]] | None = None


@frozen
class SectionKey:
    """A key of a section.

    Attributes:
        meaning: What it does, for the reference page, in Markdown.
        default: What it is if it is not written, in the words of a rules file; ``None`` is nothing. `with_defaults`
            takes it from the model where there is no other word for it.
        example: A value that works, for messages; by default the default.
        field: The model's attribute; by default the key's name.
        required: Whether a section cannot do without it.
        unless: The keys that make it unnecessary.
        streams_only: Why it is wrong in a section for UDP, and what to do instead; empty if it is not.
        datagrams_only: Whether it is wrong in a section for TCP.
        files: Those that it names.
        shapes_others: Whether values of other sections depend on it.
        loads: Returns the modules that a value needs, for the process of which workers are forked; nothing is any that is false.
        is_outer: Whether routes may be under one for which it is ``yes``; its value is an `Opening` then.
        lets_some: Whether it lets only some clients pass.
        socket_option: Its level and name in `socket`, if its value, unless false, is an option of each socket to a backend's servers.
        usual: The model's value if it is not written; see `with_defaults`.
        feature: Which one knows it, if not the core: its value is in `more` of the model.
    """

    kind: ValueKind
    meaning: str
    default: str | None = None
    example: str = ""
    field: str = ""
    required: bool = False
    unless: str = ""
    streams_only: str = ""
    datagrams_only: bool = False
    files: KeyFiles = KeyFiles()
    shapes_others: bool = False
    loads: Callable[[Any], Iterable[str]] | None = None
    is_outer: bool = False
    lets_some: bool = False
    socket_option: tuple[str, str] | None = None
    usual: Any = None
    feature: str = ""

    def value_in(self, section: Any, name: str) -> Any:
        """Return its value in a part of the model; itself if that has no attribute for it."""
        if self.feature:
            return section.more.get(name, self.usual)
        return getattr(section, self.field or name, self)


def one_path(path: Path) -> tuple[Path]:
    return (path,)


def number(low: int, high: int) -> ValueKind:
    return ValueKind(whole_number(low, high), f"`{low}` to `{high}`", bounds=(low, high))


def amount(low: int, high: int) -> ValueKind:
    shape = f"`{_size_text(low)}` to `{_size_text(high)}`"
    return ValueKind(size(low, high), shape, bounds=(low, high), write=_size_text)


def words(*choices: str) -> ValueKind:
    return ValueKind(choice(*choices), ", ".join(f"`{choice}`" for choice in choices))


BOOLEAN = ValueKind(boolean, "boolean")
LINUX_ONLY = ValueKind(linux_only, BOOLEAN.shape)
LOG = ValueKind(logged, "`yes`, `no` or `errors`")
CONNECTIONS = number(0, 1_000_000_000)
DURATION = ValueKind(positive_duration, "duration")
PROTOCOLS = ValueKind(protocol_name, "list of protocols", "list")


def with_defaults(model: object, keys: Mapping[str, SectionKey]) -> Mapping[str, SectionKey]:
    """Add the defaults of an empty section's model to its keys, where none is given."""
    table = {}
    for name, key in keys.items():
        usual = getattr(model, key.field or name, None)
        default = key.default or key.kind.write(usual)
        example = key.example or default or ""
        table[name] = attrs.evolve(key, default=default, example=example, usual=usual)
    return table
