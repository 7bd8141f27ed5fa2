"""Finds which of the remembered clients would go elsewhere by other rules: asks the workers, which alone look at what clients sent."""

from base64 import b64encode
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import attrs
from typing_extensions import override

from txmux.client.parts import ServicePart
from txmux.control.broadcast import WorkerLink, broadcast
from txmux.control.documents import untaken_documents
from txmux.control.gauge import list_of
from txmux.errors import MuxError
from txmux.features.trial import LIMIT, MOST_REMEMBERED, remembered_clients
from txmux.features.trial.comparing import use_contents
from txmux.features.trial.rows import MovedDocument, TrialDocument
from txmux.net.channel import messages
from txmux.net.channel.message import TEXT, TIME, Field
from txmux.net.turns import in_thread
from txmux.rules.model import Rules
from txmux.rules.packing import pack
from txmux.telemetry.formatting import plural

_PATIENCE = 60.0  # seconds for the answer of a worker, which serves its clients meanwhile
_FEW = 0.05  # of the sources: more are not left out of the share because rules exclude them
_VOTES = "clients", "moved", "unknown", "excluded"

_COUNT, _NAME = Field(int, MOST_REMEMBERED), Field(str, is_nullable=True)
_ANSWER = Field(
    list,
    row=[
        attrs.evolve(TIME, is_nullable=True),
        list_of(
            TEXT, TEXT, TEXT, attrs.evolve(_NAME, words=frozenset({"deny", "not_from"})),
            _COUNT, TEXT, _NAME, TIME,
        ),
        list_of(TEXT, TEXT, _COUNT),
        list_of(TEXT, *[_COUNT] * len(_VOTES)),
    ],
)  # fmt: skip
"""What a worker answers, which may be compromised: see `ClientMemory`."""


class _ReloadLimitError(MuxError):
    """Rules that came by themselves may move too many."""

    do = "txmux reload --try, then txmux reload"


class _Found:
    """What the workers have found."""

    def __init__(self) -> None:
        self.sources = defaultdict[str, Counter[str]](Counter)
        self.since: float | None = None
        self.moves: dict[tuple[str, str, str, str | None], MovedDocument] = {}
        self.unknown = Counter[tuple[str, str]]()

    def takes(self, answer: object) -> bool:
        """Add the answer of a worker; return whether it is one."""
        try:
            since, moves, unknown, sources = _ANSWER.read(answer)
        except ValueError:
            return False
        if any(sum(some) > clients for _, clients, *some in sources):
            return False
        if since is not None:
            self.since = min(since, since if self.since is None else self.since)
        for listener, now, then, excluded_by, count, client, name, time in moves:
            row = self.moves.setdefault(
                (listener, now, then, excluded_by),
                {
                    "listener": listener, "now": now, "then": then, "count": 0, "excluded_by": excluded_by,
                    "client": client, "name": name, "time": time,
                },
            )  # fmt: skip
            row["count"] += count
        for listener, why, count in unknown:
            self.unknown[listener, why] += count
        for source, *votes in sources:
            self.sources[source].update(dict(zip(_VOTES, votes, strict=True)))
        return True

    def share(self) -> float:
        """Return the percentage that would go elsewhere, or might; each source has one vote.

        Clients that rules exclude have none, so that no client keeps the rule against it from loading, as long as they are one source or
        few: more may be excluded by mistake.
        """
        votes = self.sources.values()
        excluded = sum(its["excluded"] / its["clients"] for its in votes if its["excluded"])
        are_few = excluded <= max(1.0, _FEW * len(votes)) and excluded < len(votes)
        shares = []
        for its in votes:
            if counted := its["clients"] - (its["excluded"] if are_few else 0):
                stay = its["clients"] - its["moved"] - its["unknown"] - its["excluded"]
                shares.append(1 - stay / counted)
        return round(100 * sum(shares) / max(1, len(shares)), 6)


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
            message = f"'{LIMIT}' cannot be checked: {'; '.join(found['incomplete'])}; apply the rules by 'txmux reload'"
            raise _ReloadLimitError(message)
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
            if not found.takes(answer or [None, [], [], []])
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
            "untaken": [*untaken_documents(rules)],
        }
