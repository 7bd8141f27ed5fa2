"""Files that are not rules at all: the configuration of another program, YAML or JSON."""

from __future__ import annotations

import re

_CONVERT = "'txmux convert FILE > rules.ini' writes it as rules"
_HEADERS = "write sections such as [listen public], and under them lines such as 'endpoint = :443'"

_KINDS = (
    (
        re.compile(r"^\s*(?:stream|http|events|upstream\s+\S+|server)\s*\{", re.MULTILINE),
        "a configuration of nginx",
        _CONVERT,
    ),
    (
        re.compile(r"^\s*(?:listen|protocols)\s*[:=]\s*(?:\(|$)(?=[^-]*[({])", re.MULTILINE),
        "a configuration of sslh",
        _CONVERT,
    ),
    (
        re.compile(
            r"^(?:global|defaults|(?:frontend|backend|listen)\s+[\w.-]+)\s*(?:#.*)?$", re.MULTILINE
        ),
        "a configuration of HAProxy",
        _CONVERT,
    ),
    (re.compile(r"\A\s*\{"), "JSON", _HEADERS),
    (re.compile(r"^[\w-]+:\s*$", re.MULTILINE), "YAML", _HEADERS),
)
_SECTION = re.compile(r"^\s*\[", re.MULTILINE)
_COMMENTS = re.compile(r"^\s*[#;].*$", re.MULTILINE)


def foreign(text: str) -> str:
    """Return what a file is that has no section, and what to do with it; nothing if that is not known."""
    if _SECTION.search(text):
        return ""
    plain = _COMMENTS.sub("", text)
    for pattern, what, advice in _KINDS:
        if pattern.search(plain):
            return f"this is {what}, not a rules file; {advice}"
    return ""
