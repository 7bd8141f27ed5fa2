"""What a worker remembers of the last clients: their first bytes, and what else decides. Only its supervisor gets it."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from txmux.classes import frozen
from txmux.client.parts import ServingContext, ServingPart
from txmux.features.trial import remembered_clients
from txmux.rules.model import FoundCertificate, Rules
from txmux.telemetry.access_log import REMEMBERED
from txmux.wire.preamble import NOTHING

if TYPE_CHECKING:
    from txmux.client.session import ClientSession

PAGE = 500
"""Clients in one answer, at most."""
_LATEST = 1e11  # seconds since 1970: what a calendar has
_ROOM = 6 << 20  # bytes of them in one answer: certificates may have hundreds of names


@frozen
class RememberedClient:
    """A client whose destination has been decided.

    Attributes:
        time: When it came, in seconds since 1970.
        client: Its address, by a PROXY header if it had one, and `local`, where it connected to.
        layers: What routes saw of it: outermost, then inside what each route has opened. Of a flow the first datagrams.
        certificate: What its TLS that ended here has shown; ``None`` if it was not asked.
        granted: What its tunnel was granted for.
    """

    time: float
    client: str
    local: str
    is_flow: bool
    layers: tuple[bytes, ...]
    certificate: FoundCertificate | None
    granted: Mapping[str, str]

    def as_json(self) -> list[Any]:
        shown = self.certificate
        found = None if shown is None else [[*shown.kinds], dict(shown.names)]
        layers = [b64encode(data).decode() for data in self.layers]
        return [self.time, self.client, self.local, self.is_flow, layers, found, {**self.granted}]

    @classmethod
    def read(cls, row: Sequence[Any]) -> RememberedClient:
        """Read what `as_json` of a worker returned; raises what `MISSHAPEN` has if it is anything else."""
        time, client, local, is_flow, layers, found, granted = row
        certificate = None
        if found is not None:
            names = {str(kind): tuple(map(str, some)) for kind, some in found[1].items()}
            certificate = FoundCertificate(frozenset(map(str, found[0])), names)
        datas = tuple(b64decode(data)[:REMEMBERED] for data in layers)
        if not datas or not 0 <= time < _LATEST:
            raise ValueError
        facts = {str(name): str(value) for name, value in granted.items()}
        return cls(float(time), str(client), str(local), bool(is_flow), datas, certificate, facts)


class ClientMemory(ServingPart):
    """Remembers the last clients of each listener, from their decision on. A reload keeps what still has room."""

    def __init__(self, context: ServingContext) -> None:
        self._events = context.serving.runtime.events
        self._clients: dict[str, deque[RememberedClient]] = {}
        self._added = Counter[str]()

    @override
    def commit(self, rules: Rules) -> None:
        sizes, before = remembered_clients(rules), self._clients
        self._clients = {name: deque(before.get(name, ()), size) for name, size in sizes.items()}
        self._events.follow_decisions(self._add if sizes else None)

    def _add(self, session: ClientSession) -> None:
        record = session.record
        clients = self._clients.get(record.listener)
        if clients is not None:
            self._added[record.listener] += 1
            clients.append(_remembered(session))
        outer: Any = session  # streams have what routes saw
        if getattr(outer, "outer", ()):  # else it would stay as long as the connection
            outer.outer = ()

    def remembered(self) -> Iterator[tuple[str, int, int]]:
        """Yield for each listener how many clients it has, and how many of their bytes."""
        for name, clients in self._clients.items():
            yield name, len(clients), sum(len(data) for one in clients for data in one.layers)

    @override
    def receive(self, values: Any) -> list[Any] | None:
        """Return the clients of a listener ``after`` so many that have been added, and how many have been with these."""
        if values is None:  # at the start
            return None
        clients = self._clients.get(values["listener"], deque())
        gone = self._added[values["listener"]] - len(clients)
        first = max(values["after"] - gone, 0)
        rows, room = list[Any](), _ROOM
        for client in islice(clients, first, first + PAGE):
            rows.append(client.as_json())
            room -= len(str(rows[-1]))
            if room < 0:
                break
        return [gone + first + len(rows), *rows]


def _remembered(session: Any) -> RememberedClient:
    record, tls = session.record, session.agreed_tls
    held = getattr(session, "held", None)  # a flow's first datagrams
    layers = (*session.outer, session.seen) if held is None else held
    return RememberedClient(
        record.time,
        record.client,
        record.local,
        held is not None,
        tuple(data[:REMEMBERED] for data in layers) or (b"",),
        None if tls is None else tls.found,
        session.granted if held is None else NOTHING,
    )
