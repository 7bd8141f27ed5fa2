"""Finds which of the remembered clients would go elsewhere by other rules: asks the workers, which alone look at what clients sent."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from typing_extensions import override

from txmux.client.parts import ServicePart
from txmux.control.broadcast import WorkerLink, broadcast
from txmux.errors import MuxError
from txmux.features.trial import LIMIT, remembered_clients
from txmux.features.trial.comparing import use_contents
from txmux.features.trial.documents import MovedDocument, TrialDocument
from txmux.net.channel import messages
from txmux.net.turns import in_thread
from txmux.rules.model import Rules
from txmux.rules.packing import pack
from txmux.telemetry.formatting import plural
from txmux.wire.jsontext import MISSHAPEN

_PATIENCE = 60.0  # seconds for the answer of a worker, which serves its clients meanwhile
_LATEST = 1e11  # seconds since 1970: what a calendar has
_VOTES = "clients", "moved", "unknown", "excluded"
_EXCLUDED_BY: Mapping[Any, Any] = {None: None, "deny": "deny", "not_from": "not_from"}


class _ReloadLimitError(MuxError):
    """Rules that came by themselves may move too many."""

    do = "txmux reload --try, then txmux reload"


class _Found:
    """What the workers have found."""

    def __init__(self) -> None:
        self.sources = defaultdict[str, Counter[str]](Counter)
        self.since: float | None = None
        self.moves: dict[tuple[str, str, str, str], MovedDocument] = {}
        self.unknown = Counter[tuple[str, str]]()

    def takes(self, answer: Sequence[Any]) -> bool:
        """Add the answer of a worker, which may be compromised; return whether it is one."""
        with suppress(*MISSHAPEN):
            self._add(*answer)
            return True
        return False

    def _add(self, since: Any, moves: Any, unknown: Any, sources: Any) -> None:
        if since is not None:
            self.since = min(_time(since), _LATEST if self.since is None else self.since)
        for listener, now, then, excluded_by, count, client, name, time in moves:
            row = self.moves.setdefault(
                (str(listener), str(now), str(then), str(excluded_by)),
                {
                    "listener": str(listener), "now": str(now), "then": str(then), "count": 0,
                    "excluded_by": _EXCLUDED_BY[excluded_by],
                    "client": str(client), "name": None if name is None else str(name), "time": _time(time),
                },
            )  # fmt: skip
            row["count"] += int(count)
        for listener, why, count in unknown:
            self.unknown[str(listener), str(why)] += int(count)
        for source, *votes in sources:
            self.sources[str(source)].update(dict(zip(_VOTES, map(int, votes), strict=True)))

    def share(self) -> float:
        """Return the percentage that would go elsewhere, or might, of the clients that are not excluded; each source has one vote."""
        shares = [
            (its["moved"] + its["unknown"]) / (its["clients"] - its["excluded"])
            for its in self.sources.values()
            if its["clients"] > its["excluded"]
        ]
        return round(100 * sum(shares) / max(1, len(shares)), 6)


def _time(value: Any) -> float:
    time = float(value)
    if not 0 <= time < _LATEST:
        raise ValueError
    return time


class Trial(ServicePart):
    """Tries other rules on the clients that the workers remember."""

    _rules: Rules

    def __init__(self, workers: Callable[[], Sequence[WorkerLink]]) -> None:
        self._workers = workers

    @override
    def commit(self, rules: Rules) -> None:
        self._rules = rules

    @property
    def remembers(self) -> bool:
        return bool(remembered_clients(self._rules))

    @override
    async def check_change(self, rules: Rules) -> None:
        limit = self._rules.settings.more.get(LIMIT)
        if limit is None or not self.remembers:
            return
        found = await self.compare(rules)
        if found["incomplete"]:
            raise _ReloadLimitError(
                f"'{LIMIT}' cannot be checked: {'; '.join(found['incomplete'])}; apply the rules by 'txmux reload'"
            )
        if found["share"] > limit:
            raise _ReloadLimitError(
                f"{found['changes']}: by source {found['share']:g}%, more than '{LIMIT} = {limit:g}%' allows; "
                "see where by 'txmux reload --try', and apply the rules by 'txmux reload'"
            )

    async def compare(self, rules: Rules) -> TrialDocument:
        """Report which of the remembered clients would go elsewhere."""
        missing = [
            f"{name}: what is in it is known once the rules are in force"
            for name in use_contents(self._rules, rules)
        ]
        packed = b64encode(await in_thread(pack, rules)).decode()
        answers = await broadcast(
            self._workers(),
            messages.PART,
            seconds=_PATIENCE,
            if_late="skip",
            feature="trial",
            values={"rules": packed},
        )
        missing += answers.missing
        found = _Found()
        missing += [
            f"worker {number}: its answer cannot be read"
            for number, answer in answers
            if not found.takes(answer or (None, (), (), ()))
        ]
        clients, moved, total, excluded = (
            sum(its[vote] for its in found.sources.values()) for vote in _VOTES
        )
        words = f"{moved or 'none'} of the last {plural(clients, 'client')} would go elsewhere"
        if excluded:
            are = "is" if excluded == 1 else "are"
            words += f", and {excluded} {are} shut out by 'deny' or 'not_from'"
        if not clients:
            words = "no client is remembered yet: try again when clients have come"
        return {
            "ok": True,
            "clients": clients,
            "since": found.since,
            "moved": moved,
            "unknown": total,
            "excluded": excluded,
            "share": found.share(),
            "moves": sorted(found.moves.values(), key=lambda row: -row["count"]),
            "unknowns": [
                {"listener": name, "why": why, "count": count}
                for (name, why), count in found.unknown.most_common()
            ],
            "changes": f"{words}, and of {total} it is not known" if total else words,
            "incomplete": missing,
        }
