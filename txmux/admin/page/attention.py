"""What needs a person, one sentence each."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from txmux.admin.page.units import age

if TYPE_CHECKING:
    from collections.abc import Mapping

    from txmux.admin.page.snapshot import Snapshot

_SOON = 14 * 86400  # seconds
_SHORT = 0.8
_SECTION = re.compile(r"\[([^\]]+)\]:")


def sentences(snapshot: Snapshot) -> list[str]:
    """Return what is wrong, or soon will be; nothing if all is as it should be."""
    return [
        *map(_missing, snapshot.missing),
        *_reload(snapshot.status.get("last_reload")),
        *_certificates(snapshot),
        *_descriptors(snapshot.status.get("descriptors")),
        *(f"{told[:1].upper()}{told[1:]}." for told in snapshot.status.get("attention", ())),
        *snapshot.warnings,
    ]


def _missing(problem: str) -> str:
    told = _SECTION.sub(r"\1:", problem, count=1)
    return f"{told[:1].upper()}{told[1:]}."


def _reload(last: Mapping[str, Any] | None) -> list[str]:
    if not last or last.get("ok", True):
        return []
    errors = last.get("errors") or ["no reason is known"]
    return [f"The last reload failed, so the rules before it hold: {errors[0]}"]


def _certificates(snapshot: Snapshot) -> list[str]:
    told = []
    for certificate in snapshot.status.get("certificates", ()):
        left = certificate["expires"] - snapshot.now
        if left < _SOON:
            when = f"ends in {age(left)}" if left > 0 else f"ended {age(-left)} ago"
            told.append(
                f"The certificate {certificate['file']} of route {certificate['route']} {when}."
            )
    return told


def _descriptors(descriptors: Mapping[str, Any] | None) -> list[str]:
    if not descriptors or not descriptors.get("max"):
        return []
    used = descriptors["open"] / descriptors["max"]
    if used < _SHORT:
        return []
    return [
        f"File descriptors are running out: {descriptors['open']} of {descriptors['max']} are open."
    ]
