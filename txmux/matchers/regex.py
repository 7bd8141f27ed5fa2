"""The `regex` matcher: a regular expression on the first bytes of a stream."""

from collections.abc import Mapping

from zope.interface import implementer

from txmux.detection.regex import PatternError
from txmux.errors import OptionError
from txmux.interfaces import IProtocolMatcher, Option, Predicate, Transport
from txmux.wire.predicates import Pattern
from txmux.wire.sizes import option_size

_DEFAULT_WITHIN = 256
_LARGEST_WITHIN = 64 * 1024


@implementer(IProtocolMatcher)
class RegexMatcher:
    """Recognises whatever a regular expression describes."""

    name = "regex"
    transports = tuple(Transport)
    summary = "Bytes that a regular expression matches, from the first byte on"
    options = (
        Option(
            "pattern",
            "A Python regular expression on bytes, anchored at the first one; it cannot look past its match",
            "(?i)(helo|ehlo)",
        ),
        Option(
            "within", "The match has at most this many bytes (1 to 64KiB, 256 if left out)", "64"
        ),
    )

    def predicate(self, options: Mapping[str, str]) -> Predicate:
        # Characters of the pattern beyond ASCII stand for their bytes in UTF-8.
        if not options.get("pattern"):
            problem = "empty" if "pattern" in options else "missing"
            raise OptionError("pattern", rf"is {problem}; write one, such as pattern='SSH-\d'")
        within = option_size(options, "within", _DEFAULT_WITHIN, range(1, _LARGEST_WITHIN + 1))
        try:
            predicate = Pattern(options["pattern"].encode(), within=within)
            predicate.compile()
        except UnicodeEncodeError:
            raise OptionError("pattern", r"is not valid UTF-8; write such bytes as \xNN") from None
        except PatternError as error:
            raise OptionError("pattern", str(error)) from None
        return predicate


regex = RegexMatcher()
