"""The configurations in ``benchmarks/peers``, filled in."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_TEMPLATES = Path(__file__).with_name("peers")


def fill(name: str, folder: Path, values: Mapping[str, object]) -> Path:
    """Write a configuration.

    Args:
        name: The template's file name.
        folder: Where it is written to; also the value of ``$DIR``.
        values: What stands for ``$NAME``.

    Returns:
        The path of what was written.
    """
    text = Template((_TEMPLATES / name).read_text()).substitute(values, DIR=folder)
    path = folder / name
    path.write_text(text)
    return path
