"""The rules as they were read: their text, file by file, and where each section is. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.rules.model.section import NOWHERE

if TYPE_CHECKING:
    from txmux.rules.model import Rules, Section

__all__ = ["rules_as_read", "text_of"]


def rules_as_read(rules: Rules) -> list[dict[str, Any]]:
    """Return the files that the rules were read from, the main one first.

    Args:
        rules: Those that hold; made in Python, they have no files.
    """
    named = _sections(rules)
    return [
        {
            "file": path,
            "text": text,
            "sections": [
                {"name": section.header, "line": section.line, "text": text_of(rules, section)}
                for section in sorted(named, key=lambda one: one.line)
                if section.path == path
            ],
        }
        for path, text in rules.files.texts.items()
    ]


def _sections(rules: Rules) -> list[Section]:
    found = [rules.settings.section, *(one.section for one in rules.listeners)]
    found += [one.section for one in rules.routes]
    found += [one.section for one in rules.backends.values()]
    return [one for one in found if one is not NOWHERE]


def text_of(rules: Rules, section: Section) -> str:
    """Return a section as it is written, from its header to the next one, without blank lines at its end."""
    lines = rules.files.texts.get(section.path, "").splitlines()
    if section is NOWHERE or not lines:
        return ""
    end = section.line
    while end < len(lines) and not lines[end].startswith("["):
        end += 1
    while end > section.line and not lines[end - 1].strip():
        end -= 1
    return "\n".join(lines[section.line - 1 : end])
