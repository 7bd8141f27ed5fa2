"""Warnings about who can reach the endpoint by which the service is controlled."""

from __future__ import annotations

import ipaddress
import stat
from typing import TYPE_CHECKING

from txmux.rules.reading.control import address_of, is_by_tcp

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.rules.model import Rules
    from txmux.rules.problems import Problem


def admin_reachable(rules: Rules) -> Iterator[Problem]:
    """Find an endpoint of ``admin`` that others than this machine can reach, and a token that nobody needs."""
    settings = rules.settings
    admin = settings.admin
    if admin is not None and is_by_tcp(admin) and not _is_loopback(address_of(admin)):
        message = (
            "other machines can reach this, and the token and all answers go there unencrypted; write 127.0.0.1:PORT or "
            "unix:/path, and connect through a tunnel or a proxy with TLS"
        )
        yield settings.section.problem(message, "admin")
    if settings.admin_token is not None and not is_by_tcp(admin):
        message = "it is not used without 'admin = ADDRESS:PORT'; add that, or remove this"
        yield settings.section.problem(message, "admin_token")


def readable_token(rules: Rules) -> Iterator[Problem]:
    """Find a token that everybody on this machine can read."""
    settings = rules.settings
    if settings.admin_token is None or not is_by_tcp(settings.admin):
        return
    try:
        mode = settings.admin_token.stat().st_mode
    except OSError:  # it is made at the start, or another user may see it
        return
    if mode & stat.S_IROTH:
        path = settings.admin_token
        message = f"everybody on this machine can read '{path}', and control the service by it; 'chmod o= {path}'"
        yield settings.section.problem(message, "admin_token")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
