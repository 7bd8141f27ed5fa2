"""Inputs that are kept: a file for each target, with a line of base64 for each of them, the shortest first."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

_FOLDER = Path(__file__).with_name("corpus")
MOST = 5_000
"""Bytes of a file."""


def _file(target: str) -> Path:
    return _FOLDER / f"{target}.txt"


def kept(target: str) -> list[bytes]:
    file = _file(target)
    lines = file.read_text().split() if file.exists() else []
    return [base64.b64decode(line) for line in lines]


def keep(target: str, inputs: Iterable[bytes]) -> None:
    lines: list[str] = []
    room = MOST
    for data in sorted(filter(None, inputs), key=lambda one: (len(one), one)):
        line = base64.b64encode(data).decode()
        room -= len(line) + 1
        if room < 0:
            break
        lines.append(line)
    _file(target).write_text("".join(f"{line}\n" for line in lines))
