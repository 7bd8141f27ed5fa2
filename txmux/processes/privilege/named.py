"""What the helper that opens files and ports goes by: all that rules name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from txmux.admin.places import automatic_places, control_places
from txmux.processes.privilege.account import account_of
from txmux.rules.model import Backend
from txmux.serving.listen_addresses import listen_addresses

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from txmux.rules.model import Rules
    from txmux.serving.listen_addresses import ListenAddress

__all__ = ["Named"]


@attrs.define
class Named:
    """What rules name.

    Attributes:
        files: That may be read.
        secrets: That may be read, but not by workers: by these, the service is asked, or asks others.
        log: That may be appended to.
        places: Where may be listened, by listener and text.
        token: That may be made, if it is not there.
    """

    files: frozenset[str]
    secrets: frozenset[str]
    log: str | None
    places: dict[tuple[str, str], ListenAddress]
    owner: tuple[int, int] | None
    token: str | None

    @classmethod
    def by(cls, rules: Rules) -> Named:
        """Look through rules."""
        ends = [route.terminate_tls for route in rules.routes if route.terminate_tls is not None]
        files: list[Path | None] = [
            path for end in ends for path in (*end.files, end.client_ca, end.client_crl)
        ]
        log, token = rules.settings.access_log, rules.settings.admin_token
        secrets: list[Path | None] = [token, rules.settings.crowdsec_key]
        for backend in (*rules.backends.values(), *rules.outcomes()):
            if isinstance(backend, Backend):
                secrets.append(backend.consul_token)
            if isinstance(backend, Backend) and backend.tls is not None:
                files += [backend.tls.ca, *backend.tls.certificate]
        files += [rules.settings.shared_limits_password, *rules.settings.geo_databases]
        files += map(Path, rules.files.texts)
        account = account_of(rules)
        return cls(
            frozenset(_absolute(files)),
            frozenset(_absolute(secrets)),
            os.path.abspath(log) if isinstance(log, Path) else None,  # noqa: PTH100 - links stay
            {(place.listener, place.text): place for place in _places(rules)},
            account.owner if account else None,
            os.path.abspath(token) if token else None,  # noqa: PTH100 - as above
        )


def _absolute(paths: Iterable[Path | None]) -> Iterator[str]:
    return (os.path.abspath(path) for path in paths if path)  # noqa: PTH100 - as above


def _places(rules: Rules) -> Iterator[ListenAddress]:
    for listener in rules.listeners:
        yield from listen_addresses(listener)
    for _, place in control_places(rules, lambda _: None):
        yield place
    if rules.settings.admin == "auto":
        yield from automatic_places(rules.path)
