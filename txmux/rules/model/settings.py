"""The settings of the whole service."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import attrs

from txmux.rules.model.backend import ConsulAPI
from txmux.rules.model.section import NOWHERE, Section


@attrs.frozen
class Store:
    """A Redis, or what speaks its protocol.

    Attributes:
        text: As it is written; it has no secret.
        host: Its name or address; empty if it listens at a path.
        port: By TCP.
        path: Of its UNIX socket.
        tls: Whether it is spoken to by TLS.
        user: By which it knows this service; empty is its default user.
        database: The number of the database.
        password: The file with the password; ``None`` is none.
    """

    text: str
    host: str = ""
    port: int = 6379
    path: Path | None = None
    tls: bool = False
    user: str = ""
    database: int = 0
    password: Path | None = None


@attrs.frozen
class Settings:
    """The ``[txmux]`` section.

    Attributes:
        relay: Which relay carries the bytes once a connection is established.
        workers: Processes that accept from the listening ports.
        sandbox: Whether workers give up to open files by themselves; with ``"yes"`` the service does not start if they cannot.
        max_connections: For the whole service; 0 means no limit.
        drain_timeout: Seconds that existing connections get to finish when the service stops.
        drain_removed: Whether that holds, too, for connections of what a reload has removed.
        access_log: ``None`` is off, ``"-"`` the service's own log, ``"stdout"`` the standard output, else a file.
        access_log_format: How an access log line is written.
        resolvers: The name servers of backends that name none; these have them already.
        consul: Where its HTTP API is, for all backends; these have it already.
        user: The user to switch to once all ports are open, by name or number; ``None`` means no change.
        group: The group to switch to; ``None`` is that of `user`.
        admin: The server endpoints of page, API and commands; ``"auto"`` is a UNIX socket in a folder for such files.
        admin_token: The file with the secret that clients by TCP have to know.
        metrics: The server endpoint that has metrics and health, without a secret; ``None`` is off.
        crowdsec_key: The file with the key of ``crowdsec:`` networks.
        shared_limits: Where bans and limits are shared with other machines; ``None`` is nowhere.
        geo_databases: Databases of the country or autonomous system of an address.
        watch_rules: Seconds between two checks whether the rules' files have changed; 0 is never.
        grace: Seconds that clients are still accepted when the service stops, while it reports that it is not ready.
        acme: The URL of the ACME directory of an authority (RFC 8555, section 7.1.1); ``None`` asks none for certificates.
        acme_email: Where the authority may write to; ``None`` is nowhere.
        acme_folder: The folder of its certificates, and of the account's key.
        acme_ca: A PEM file with the root of the directory's own certificate; ``None`` is those of the system.
        acme_terms: Whether the operator agrees to the authority's terms of service.
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
    consul: ConsulAPI = attrs.field(factory=ConsulAPI)
    user: str | None = None
    group: str | None = None
    admin: tuple[str, ...] = ("auto",)
    admin_token: Path | None = None
    metrics: str | None = None
    grace: float = 0.0
    watch_rules: float = 0.0
    crowdsec_key: Path | None = None
    geo_databases: tuple[Path, ...] = ()
    shared_limits: Store | None = None
    acme: str | None = None
    acme_email: str | None = None
    acme_folder: Path = Path("/var/lib/txmux/acme")
    acme_ca: Path | None = None
    acme_terms: bool = False
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)
