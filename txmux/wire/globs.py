"""Comma-separated patterns of names, as the options ``sni=``, ``host=``, ``software=`` … take them."""

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from itertools import islice

import attrs

from txmux.classes import frozen
from txmux.detection.regex import PatternError, StreamPattern, compile_pattern
from txmux.errors import OptionError
from txmux.interfaces import NameKey, Peeked
from txmux.transport import normal_host

__all__ = ["Globs", "hosts", "names", "normal_host", "option_globs"]

_MOST_LISTED = 12
_UNDER = re.compile(r"\*\.[^*?]+")
_WILDCARD = re.compile(r"[*?]")
_NOTHING: frozenset[str] = frozenset()
_ANY_HEAD = ("",)
_ADDRESS_CHARACTERS = re.compile(r"[0-9a-f:.]+")
_ADDRESS_BEGUN = re.compile(r"[0-9a-fA-F]{0,4}(?::[0-9a-fA-F:.]*)?")
PLAIN_HOST = re.compile(r"(?:[a-z0-9_-]+\.)*[a-z0-9_-]*[a-z_-]")  # which is its normal form
_NO_EMPTY_LABEL = r"(?!\.|(?s:.*)\.\.)"


@frozen
class Globs:
    """Patterns of which a name has to match one; made by `names` or `hosts`."""

    _exact: Collection[str]
    _heads: tuple[str, ...]
    _wild: re.Pattern[str] | StreamPattern | None
    normal: Callable[[str], str] | None
    """Returns the form in which names and patterns are compared."""
    _under: frozenset[str] | None = None
    _has_labels: bool = False
    _longest: int = attrs.field(init=False)
    """Of what is in `_under`."""
    _has_addresses: bool = attrs.field(init=False)
    longest_head: int = attrs.field(init=False)
    """`could_match_prefix` says the same of this many characters of a prefix, and one more, as of all."""

    @longest_head.default
    def _find_longest_head(self) -> int:
        return max(map(len, (*self._exact, *self._heads)), default=0)

    @_has_addresses.default
    def _find_addresses(self) -> bool:
        begun = (*self._exact, *self._heads)
        return self.normal is normal_host and any(map(_ADDRESS_CHARACTERS.fullmatch, begun))

    @_longest.default
    def _find_longest(self) -> int:
        return max(map(len, self._under or ()), default=0)

    def matches(self, name: str) -> bool:
        """Return whether a name matches any of the patterns."""
        if self.normal is not None:
            name = self.normal(name)
        if name in self._exact:
            return True
        if self._under:
            return self._is_under(name)
        if isinstance(self._wild, StreamPattern):
            return self._wild.fullmatch(name.encode("utf-8", "surrogateescape"))
        return self._wild is not None and self._wild.match(name) is not None

    def _is_under(self, name: str) -> bool:
        assert self._under is not None  # noqa: S101 - callers ask only then
        if self._has_labels and (name.startswith(".") or ".." in name):
            return False
        at = name.find(".", max(0, len(name) - self._longest - 1))
        while at >= 0:
            if name[at + 1 :] in self._under:
                return True
            at = name.find(".", at + 1)
        return False

    def key(
        self, read: Callable[[Peeked], str | None], begun: Callable[[Peeked], str] | None = None
    ) -> NameKey | None:
        """Return the key of a predicate that depends on a host name which has to match.

        Args:
            read: Reads the name; see `txmux.interfaces.NameKey`.
            begun: Reads how it begins, if the predicate asks `could_match_prefix` about that.

        Returns:
            The key, if all patterns are names or have their only wildcard in front, as ``*.example.com``; else ``None``.
        """
        if self._under is None:
            return None
        exact = frozenset(self._exact)
        return NameKey(read, exact, self._under, None if self._has_addresses else begun)

    def could_match_prefix(self, prefix: str) -> bool:
        """Return whether a name that begins with `prefix` might still match; only a ``False`` is certain."""
        # IPv6 has many forms, and IPv4 one in it.
        if self._has_addresses and _ADDRESS_BEGUN.fullmatch(prefix):
            return True
        if self.normal is not None:
            prefix = self.normal(prefix)
        # Called at every byte of a client, so without generators, which would take longer than the test.
        for head in self._heads:
            if prefix.startswith(head) or head.startswith(prefix):
                return True
        for name in self._exact:  # noqa: SIM110 - as above
            if name.startswith(prefix):
                return True
        return False


def names(
    text: str, known: Collection[str] = (), normal: Callable[[str], str] | None = None
) -> Globs:
    """Read patterns in which case counts, unless there is a normal form.

    Args:
        text: Patterns separated by commas; ``*`` is any run of characters, ``?`` is one. Or ``~`` and a regular
            expression that matches a name as a whole.
        known: If given, all names there are.
        normal: Returns the form in which names and patterns are compared; regular expressions are without case then.

    Raises:
        ValueError: A pattern is empty, or matches none of `known`.
    """
    if text.startswith("~"):
        return _regular(_unanchored(text[1:]), normal)
    patterns = _items(text)
    for pattern in patterns if known else ():
        if not any(map(_compiled([pattern], None, _regex).matches, known)):
            raise ValueError(f"{pattern!r} matches nothing; {_meant(pattern, known)}")
    return _compiled([*map(normal, patterns)] if normal else patterns, normal, _regex)


def whole_name(text: str) -> Globs:
    """Read one pattern in which commas are literal, as those of a distinguished name; otherwise as `names`."""
    if text.startswith("~"):
        return _regular(_unanchored(text[1:]), None)
    if not text:
        raise ValueError("'' is empty; write a pattern such as CN=alice,*")
    return _compiled([text], None, _regex)


def hosts(text: str) -> Globs:
    """Read patterns of host names, which are compared as `normal_host` says.

    Args:
        text: As for `names`. ``*.example.com`` has one or more labels before the rest, none of them empty;
            ``.example.com`` is that and the name itself.

    Raises:
        ValueError: A pattern is empty, or cannot match a host name.
    """
    if PLAIN_HOST.fullmatch(text):  # as most of thousands
        return _compiled([text], normal_host, _host_regex)
    if text.startswith("~"):
        return _regular(_unanchored(text[1:]), normal_host)
    patterns: list[str] = []
    for item in _items(text):
        pattern = normal_host(item.removesuffix(".").removeprefix("[").removesuffix("]"))
        if pattern.startswith("."):
            patterns += [pattern[1:], f"*{pattern}"]
        else:
            patterns.append(pattern)
        if "" in patterns[-1].split("."):
            raise ValueError(f"{item!r} has an empty part; write a name such as www.example.com")
        if item.count(":") == 1:
            raise ValueError(f"{item!r}: give the host name alone, without scheme and port")
        if odd := not_of_names(item):
            raise ValueError(f"{item!r}: no name of a host has {odd!r} in it")
        if not item.isascii():
            raise ValueError(f"{item!r}: write the name as it travels, in ASCII (xn--…)")
    return _compiled(patterns, normal_host, _host_regex)


def not_of_names(text: str) -> str:
    """Return the first character beyond ASCII that no international name has, such as a dash; empty if there is none."""
    odd = (one for one in text if not one.isascii() and unicodedata.category(one)[0] not in "LMN")
    return next(odd, "")


def host_beginnings(text: str) -> Globs:
    """Read a regular expression of how host names begin, each with the dot that may end it.

    Raises:
        ValueError: It cannot be used.
    """
    return _regular(f"(?:{text}).*", _absolute_host)


def option_globs(
    options: Mapping[str, str], name: str, read: Callable[[str], Globs] = names
) -> Globs | None:
    """Read the patterns of an option.

    Args:
        options: The options of a ``match =`` line.
        name: Which of them.
        read: `names`, `hosts`, or what narrows them.

    Returns:
        The patterns; ``None`` if the option is not there.

    Raises:
        OptionError: The patterns cannot be used.
    """
    if name not in options:
        return None
    try:
        return read(options[name])
    except ValueError as error:
        raise OptionError(name, str(error)) from error


def _regular(text: str, normal: Callable[[str], str] | None) -> Globs:
    try:
        pattern = compile_pattern(text.encode())
        if normal is not None:
            pattern = compile_pattern(f"(?i:{text})".encode())
    except PatternError as error:
        raise ValueError(str(error)) from error
    return Globs(exact=frozenset(), heads=("",), wild=pattern, normal=normal)


def _unanchored(text: str) -> str:
    """Take the anchors off: the expression is about a whole name anyway."""
    text = text.removeprefix("^")
    if text.endswith("$") and not text.endswith("\\$"):
        text = text[:-1]
    if not text:
        raise ValueError("'~' needs a regular expression, such as ~(www|api)[.]example[.]com")
    return text


def _meant(pattern: str, known: Collection[str]) -> str:
    folded = {name.casefold(): name for name in known}
    several = [folded.get(part, "") for part in pattern.casefold().split("|")]
    if len(several) > 1 and all(several):
        return f"did you mean {','.join(several)!r}?"
    # What others write in front of it: `HTTP/1.1`, `TLSv1.3`.
    near = sorted(filter(pattern.casefold().endswith, folded), key=len, reverse=True)
    near = near or get_close_matches(pattern.casefold(), folded, n=1)
    if near:
        return f"did you mean {folded[near[0]]!r}?"
    if len(known) <= _MOST_LISTED:
        return f"possible are {', '.join(known)}"
    return f"there are {len(known)} names such as {', '.join(islice(known, 3))}"


def _items(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if "" in items:
        raise ValueError(f"{text!r} has an empty item; write names with single commas between them")
    return items


def _absolute_host(name: str) -> str:
    return f"{normal_host(name)}."


def _compiled(
    patterns: Collection[str], normal: Callable[[str], str] | None, regex: Callable[[str], str]
) -> Globs:
    wild = [pattern for pattern in patterns if _WILDCARD.search(pattern)]
    has_labels = regex is _host_regex
    # Rules may have thousands of these, so empty ones are shared, and a set of one name is a tuple, which is smaller.
    if not wild:
        exact = tuple(patterns) if len(patterns) == 1 else frozenset(patterns)
        return Globs(exact, (), None, normal, _NOTHING, has_labels)
    exact = frozenset(patterns).difference(wild) or _NOTHING
    if all(map(_UNDER.fullmatch, wild)):
        # A look-up among thousands of names is faster than any expression, which would also take long to compile.
        under = frozenset(pattern[2:] for pattern in wild)
        return Globs(exact, _ANY_HEAD, None, normal, under, has_labels)
    heads = tuple({_WILDCARD.split(pattern, maxsplit=1)[0] for pattern in wild})
    return Globs(exact, heads, re.compile("|".join(map(regex, wild))), normal, None, has_labels)


def _regex(pattern: str) -> str:
    return fnmatch.translate(pattern.replace("[", "[[]"))


def _host_regex(pattern: str) -> str:
    return (_NO_EMPTY_LABEL if pattern.startswith("*.") else "") + _regex(pattern)
