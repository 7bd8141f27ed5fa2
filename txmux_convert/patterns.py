"""Regular expressions that are looked for anywhere in a text, as patterns of names in txmux."""

import re
import warnings

from txmux_convert.matching import branches
from txmux_convert.terms import InexpressibleError

_GROUP_NAME = re.compile(r"\(\?(?:P?<([A-Za-z_]\w*)>|'(\w+)')")
_LITERAL = r"(?:[\w/-]|\\[^\w\\])+"
_ANYTHING = re.compile(r"\^?(?:\(?\.[*+]\)?)?\$?")
_AS_GLOB = re.compile(
    rf"(?P<start>\^(?:\.[*+]|\(\.[*+]\))?|)(?P<text>{_LITERAL})(?P<end>(?:\.[*+]|\(\.[*+]\))?\$|)"
)
_PROTOCOL = r"(?:[\w./-]|\\[^\w\\])+"  # a dot is mostly meant for itself, and no other protocol has another sign there
_LISTED = re.compile(
    rf"(?P<start>\^|\\b|\((?:\?:)?\^\|,\)|)(?:\((?:\?:)?)?(?P<texts>{_PROTOCOL}(?:\|{_PROTOCOL})*)\)?"
    r"(?P<end>\$|\\b|\((?:\?:)?(?:\$\|,|,\|\$)\)|)"
)
_ESCAPE = re.compile(r"\\(.)")


def python_regex(text: str) -> re.Pattern[str]:
    """Read what follows ``~`` in nginx, where a ``*`` folds case and PCRE can more than Python."""
    pattern = _GROUP_NAME.sub("(", text.removeprefix("*"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return re.compile(pattern, re.IGNORECASE if text.startswith("*") else 0)
        except (re.error, Warning, OverflowError) as error:
            raise InexpressibleError(f"~{text} is not a regular expression here: {error}") from None


def takes_everything(pattern: str) -> bool:
    return pattern != "^$" and _ANYTHING.fullmatch(pattern) is not None


def name_pattern(pattern: str) -> str:
    """Write a regular expression as the pattern of a whole name, of which case does not count."""
    match = _AS_GLOB.fullmatch(pattern)
    if match:
        text = _ESCAPE.sub(r"\1", match["text"])
        before = "" if match["start"] == "^" else "*"
        after = "" if match["end"] == "$" else "*"
        # What begins with a dot has a label before it, in both; else as much as nothing will do.
        if not ("+" in match["start"] and text[0] != ".") and "+" not in match["end"]:
            return written(f"{before}{text}{after}")
    return without_case("~" + "|".join(map(_whole, branches(_GROUP_NAME.sub("(", pattern)))))


def without_case(pattern: str) -> str:
    """Write an expression about a name, which txmux has in small letters, so that it may have capital ones."""
    is_expression = pattern.startswith("~")
    return f"~(?i:{pattern[1:]})" if is_expression and has_capitals(pattern) else pattern


def has_capitals(pattern: str) -> bool:
    return any(map(str.isupper, re.sub(r"\\.", "", pattern)))


def written(name: str) -> str:
    """Write a name as a pattern of ``sni=``, in which ``none`` stands for a hello without a name."""
    return "~none" if name == "none" else name


def protocol_patterns(pattern: str) -> tuple[str, bool]:
    r"""Write a regular expression, which is looked for in a list with commas, as the patterns of one of its protocols.

    Returns:
        The patterns, and whether they take exactly the same clients; ``\bh2\b`` is said to ask for ``h2``.
    """
    match = _LISTED.fullmatch(pattern.removeprefix("*").removeprefix("^.*").removesuffix(".*$"))
    if match is None:
        raise InexpressibleError(f"~{pattern} is about the list of all protocols at once")
    texts = [_ESCAPE.sub(r"\1", text) for text in match["texts"].split("|")]
    before, after = ("" if match[name] else "*" for name in ("start", "end"))
    exact = match["start"] != "^" and match["end"] != "$"
    return ",".join(f"{before}{text}{after}" for text in texts), exact


def _whole(branch: str) -> str:
    if branch.startswith("^"):
        branch = branch[1:]
    elif not branch.startswith(".*"):
        branch = f".*{branch}"
    if branch.endswith("$") and not re.search(r"(?<!\\)(\\\\)*\\\$$", branch):
        return branch[:-1]
    return branch if branch.endswith(".*") else f"{branch}.*"
