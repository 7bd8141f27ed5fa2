"""A route: the clients that it takes and the backend that they get."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import attrs

from txmux.classes import frozen
from txmux.rules.model.backend import Backend, Handover, Outcome, Refusal
from txmux.rules.model.client_certificate import AllowedClient, CertificateCondition
from txmux.rules.model.listener import Listener, Logged
from txmux.rules.model.networks import EVERY_CLIENT, Clients
from txmux.rules.model.section import NOTHING_MORE, NOWHERE, Section
from txmux.transport import Transport

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

    from txmux.interfaces import Predicate

WEEK = frozenset(range(7))
MIDNIGHT = 24 * 60


@frozen
class Period:
    """Times of the week, in local time: an hour that occurs twice in autumn is included twice.

    Attributes:
        days: On which it begins; 0 is Monday.
        start: When it begins, in minutes after midnight.
        end: The end, in minutes after midnight; an end before `start` is on the next day.
        zone: Where the wall is; ``None`` is where this machine is.
    """

    days: frozenset[int] = WEEK
    start: int = 0
    end: int = MIDNIGHT
    zone: ZoneInfo | None = None

    def covers(self, moment: float) -> bool:
        """Return whether a moment, in seconds since 1970, is in it."""
        shown = datetime.fromtimestamp(moment, self.zone)
        day, minute = shown.weekday(), shown.hour * 60 + shown.minute
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        if minute >= self.start:
            return day in self.days
        return minute < self.end and (day - 1) % 7 in self.days


TLSMinimum = Literal["1.2", "1.3"]
"""The oldest version of TLS that is spoken."""


@frozen
class TlsSettings:
    """How a route terminates TLS.

    Its attributes but these are the keys of ``[route]`` of their names, ``tls_`` before them.

    Attributes:
        files: The PEM files of ``terminate_tls =``, at least one; those of `managed` are made.
        managed: The names of whose certificates, which a feature gets and renews, these are the files.
        may_lack: Whether files that cannot be used are no error, as those of a unit: until they can, clients are refused.
        author: The user who has written it, if that is neither root nor the operator.
    """

    files: tuple[Path, ...]
    alpn: tuple[str, ...] = ()
    client_ca: Path | None = None
    minimum: TLSMinimum = "1.2"
    allow_client: tuple[AllowedClient, ...] = ()
    client_crl: Path | None = None
    client: Literal["required", "optional"] = "required"
    managed: tuple[str, ...] = ()
    may_lack: bool = False
    author: int | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return (*self.files, *filter(None, (self.client_ca, self.client_crl)))

    @property
    def verification(self) -> object:
        return self.client_ca, self.client, self.allow_client, self.client_crl


@frozen
class Alternative:
    """One ``match =`` line: ``[not] MATCHER [option=value]…``.

    Attributes:
        text: The line as written.
        predicate: What the matcher made of it. If it is for UDP only, it is called with datagrams.
        negated: Whether ``not`` comes before it.
        datagrams: The predicate for datagrams; ``None`` if the matcher is not for UDP.
        streams: Whether the matcher is for TCP.
        silent_after: Seconds without a byte after which it matches, 0 if the listener says; ``None`` if it goes by bytes.
    """

    text: str
    predicate: Predicate
    negated: bool = False
    datagrams: Predicate | None = None
    streams: bool = True
    silent_after: float | None = None

    def for_transport(self, transport: Transport, fact: str = "") -> Alternative | None:
        """Return the line for listeners of a transport; ``None`` if its matcher is not for that.

        With the name of a fact, it does not match before that is known, or known not to be there, if its matcher can tell.
        """
        if transport is Transport.TCP:
            found = self if self.streams else None
        else:
            over = self.datagrams
            found = None if over is None else attrs.evolve(self, predicate=over)
        if found is None or not fact or not hasattr(found.predicate, "naming"):
            return found
        return attrs.evolve(found, predicate=found.predicate.naming(fact))


@frozen
class Opening:
    """What a route opens for its clients, so that the routes ``under`` it decide on what is inside: TLS, or the value of a feature's key.

    Attributes:
        key: The key by which it does so.
        inside: What it is, as after "inside".
        does: What the route does, with the route as its subject.
        is_over: What happens over TCP only, as before these words.
        comes_over: The same of the route's clients.
        otherwise: What to do where their listener uses UDP.
        answered: Of whom it has to be said that requests were answered here; empty if none were.
        names: The facts that its clients have named before what is inside.
        error: The fact that says why it was not opened, and
        fails: what the route does then.
    """

    key: str
    inside: str
    does: str
    is_over: str
    comes_over: str
    otherwise: str
    answered: str = ""
    names: tuple[str, ...] = ()
    error: str = ""
    fails: str = ""


_TLS = Opening(
    "terminate_tls",
    inside="TLS",
    does="ends TLS",
    is_over="TLS ends",
    comes_over="TLS ends",
    otherwise="use a server that ends DTLS or QUIC itself",
)


@frozen(weakref_slot=False)
class Route:
    """The conditions under which clients get an outcome.

    An attribute is the key of its name, and ``txmux.rules.reading.route.KEYS`` says what that means.

    Attributes:
        alternatives: The lines of ``match =``, at least one.
        outcome: ``backend =``. If it `is_outer`, ``None`` is the listener's outcome for clients that no route under it takes.
        clients: ``from =`` and ``not_from =``.
        section: Its section of a file; `NOWHERE` if it was made in Python.
        is_of_unit: Of one that takes silent clients, whether it belongs to another unit than the operator's.
        more: The values of the keys of features, by name.
    """

    name: str
    alternatives: tuple[Alternative, ...]
    outcome: Outcome | None
    clients: Clients = EVERY_CLIENT
    client_cert: CertificateCondition | None = None
    during: tuple[Period, ...] = ()
    terminate_tls: TlsSettings | None = None
    under: tuple[str, ...] = ()
    log: Logged = True
    dry_run: bool = False
    is_of_unit: bool = False
    section: Section = attrs.field(default=NOWHERE, eq=False, repr=False)
    more: Mapping[str, Any] = attrs.field(default=NOTHING_MORE, hash=False)

    @property
    def opens(self) -> Opening | None:
        if self.terminate_tls is not None:
            return _TLS
        if not self.more:  # as nearly all of thousands
            return None
        return next((one for one in self.more.values() if isinstance(one, Opening)), None)

    @property
    def is_outer(self) -> bool:
        return self.terminate_tls is not None or bool(self.more and self.opens)

    @property
    def takes_silent(self) -> bool:
        return any(one.silent_after is not None for one in self.alternatives)

    def silent_after(self, listener: Listener) -> float:
        """Return after how many seconds without a byte it takes a client of a listener, if it takes any such."""
        times = (one.silent_after for one in self.alternatives)
        return min((one or listener.silent_after for one in times if one is not None), default=inf)

    @property
    def is_restricted(self) -> bool:
        """Whether it refuses clients, or lets only some of them reach what it leads to."""
        outcome, restricted = self.outcome, (self.clients.limited, self.client_cert, self.during)
        if any(restricted) or self.is_outer or isinstance(outcome, Refusal):
            return True
        return isinstance(outcome, Backend) and outcome.allow_names is not None

    def stands_under(self, owner: Listener | Route) -> bool:
        """Return whether it belongs to a listener, or to a route that `is_outer`."""
        # No listener has the name of such a route, if any route is under that name.
        if self.under:
            return owner.name in self.under
        if not isinstance(owner, Listener) or owner.is_of_unit:
            return False
        transport = self.transport
        return transport is None or transport is owner.transport

    @property
    def transport(self) -> Transport | None:
        """What its clients come by, since what it opens does or its servers are spoken to by that; ``None`` if it may be either."""
        if self.is_outer or isinstance(self.outcome, Handover):
            return Transport.TCP
        return self.outcome.transport if isinstance(self.outcome, Backend) else None

    def is_for(self, transport: Transport) -> bool:
        return self.transport in {None, transport} and self.for_transport(transport) is not None

    def for_transport(self, transport: Transport) -> Route | None:
        """Return the route with the lines for listeners of a transport; ``None`` if there are none."""
        of_client = self.outcome.names if isinstance(self.outcome, Backend) else ()
        fact = next(iter(of_client), "")
        found = [alternative.for_transport(transport, fact) for alternative in self.alternatives]
        lines = tuple(filter(None, found))
        if not lines:
            return None
        return self if lines == self.alternatives else attrs.evolve(self, alternatives=lines)
