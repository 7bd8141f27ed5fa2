"""The keys of a rules file that tell where its service can be asked.

Only these are read, so that a service can be asked whatever else is wrong in the file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from txmux.cli.remote.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


class Keys(NamedTuple):
    """What ``[txmux]`` says.

    Attributes:
        admin: The endpoint, or ``auto`` or ``off``.
        token: The file with the secret.
    """

    admin: str
    token: Path | None


def read_keys(path: Path) -> Keys:
    """Read a rules file.

    Raises:
        UsageError: It cannot be read.
    """
    # Not needed, and not loaded, when the endpoint is named.
    from txmux.rules.reading.files import expand_section, read_source  # noqa: PLC0415
    from txmux.rules.reading.ini import read_ini  # noqa: PLC0415

    try:
        source = read_source(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{path} cannot be read: {reason}") from None
    sections, _ = read_ini(source.text, str(path))
    found: dict[str, str] = {}
    for written in sections:
        if written.header == "txmux":
            section, _ = expand_section(written, os.environ.get)
            for key in ("admin", "admin_token"):
                found.update((key, item.text) for item in section.items(key)[:1])
    token = found.get("admin_token")
    return Keys(found.get("admin", "auto"), path.parent / token if token else None)
