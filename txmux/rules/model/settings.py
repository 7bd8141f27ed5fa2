"""The settings of the whole service."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import attrs

from txmux.classes import frozen
from txmux.rules.model.section import NOTHING_MORE, NOWHERE, Section

Right = Literal["read", "steer", "all"]
"""What a client of ``admin`` may do; each right includes those before it."""

RIGHTS: tuple[Right, ...] = get_args(Right)


@frozen
class AdminUser:
    """Who may do what by a UNIX socket of ``admin``: a user or a group, by name or number."""

    name: str
    right: Right
    is_group: bool = False


@frozen
class Settings:
    """The ``[txmux]`` section. Times are seconds.

    An attribute is the key of its name, and ``txmux.rules.reading.service.KEYS`` says what that means.

    Attributes:
        access_log: ``None`` is off, ``"-"`` the service's own log, ``"stdout"`` the standard output, else a file.
        admin: ``"auto"`` is a UNIX socket in a folder for such files.
        admin_users: Rights by a UNIX socket of ``admin``; without any, everyone who can open it has all rights.
        watch_rules: 0 is never.
        more: The values of the keys of features, by name.
        section: Its section of a file; `NOWHERE` if it was made in Python.
    """

    relay: Literal["auto", "portable", "kernel"] = "auto"
    workers: int = 1
    sandbox: Literal["auto", "yes", "off"] = "auto"
    max_connections: int = 0
    drain_timeout: float = 30.0
    drain_removed: bool = False
    access_log: Path | Literal["-", "stdout"] | None = "-"
    access_log_format: Literal["text", "json"] = "text"
    resolvers: tuple[tuple[str, int], ...] = ()
    user: str | None = None
    group: str | None = None
    admin: tuple[str, ...] = ("auto",)
    admin_token: Path | None = None
    admin_tokens: Path | None = None
    admin_users: tuple[AdminUser, ...] = ()
    metrics: str | None = None
    grace: float = 0.0
    watch_rules: float = 0.0
    more: Mapping[str, Any] = NOTHING_MORE
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)

    @property
    def log(self) -> object:
        return self.access_log, self.access_log_format
