"""Writes the tables of keys in ``reference/rules.md`` from those that the rules are read by; ``script/docs`` runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from txmux.rules.reading.sections import HEADERS, TABLES

if TYPE_CHECKING:
    from txmux.rules.reading.key import Key

_PAGE = Path(__file__).parent / "reference/rules.md"


def with_tables(page: str) -> str:
    """Give the text of the page with its tables as they should be."""
    for kind, keys in TABLES.items():
        begin, end = f"<!-- the keys of {HEADERS[kind]}, by script/docs -->\n", "<!-- end -->\n"
        before, mark, rest = page.partition(begin)
        _, end_mark, after = rest.partition(end)
        if not mark or not end_mark:
            raise ValueError(f"the page has no place for the keys of {HEADERS[kind]}")
        rows = ["| key | takes | default | meaning |", "|---|---|---|---|"]
        rows += [_row(name, key) for name, key in keys.items()]
        page = before + begin + "".join(f"{row}\n" for row in rows) + end + after
    return _with_index(page)


def _with_index(page: str) -> str:
    begin, end = "<!-- all keys, by script/docs -->\n", "<!-- end -->\n"
    before, mark, rest = page.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not mark or not end_mark:
        raise ValueError("the page has no place for the table of all keys")
    sections: dict[str, list[str]] = {}
    for kind, keys in TABLES.items():
        for name in keys:
            sections.setdefault(name, []).append(f"[`{HEADERS[kind]}`](#{_anchor(HEADERS[kind])})")
    rows = ["| key | in |", "|---|---|"]
    rows += [f"| `{name}` | {', '.join(sections[name])} |" for name in sorted(sections)]
    return before + begin + "".join(f"{row}\n" for row in rows) + end + after


def _anchor(header: str) -> str:
    return header.strip("[]").lower().replace(" ", "-")


def _row(name: str, key: Key) -> str:
    default = "none" if key.default is None else f"`{key.default}`"
    if key.required:
        default = "required"
    return f"| `{name}` | {key.kind.shape} | {default} | {key.meaning} |"


if __name__ == "__main__":
    _PAGE.write_text(with_tables(_PAGE.read_text()))
