"""What processes tell of themselves when numbers are read, and nobody counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Present", "length"]


@attrs.frozen
class Present:
    """How all processes are together.

    Attributes:
        generations: The number of versions of the rules that hold for some connection, or for the next one.
        descriptors: How many are open, and how many may be, in the process that has least room.
        sources: The number of sources of clients that are kept in mind for limits, by listener.
        certificates: The route, the file and when it is not valid any more, in seconds since 1970.
        cluster: Whether every process is answered by the Redis of ``shared_limits``; ``None`` if there is none.
        troubles: What needs a person, a sentence each.
        stale: By backend and server, for how many seconds the addresses of a name have not been confirmed, and why; ``None``
            if there never were any.
        up: The backend and the server of each server that connections are led to.
    """

    generations: int = 1
    descriptors: tuple[int, int] = (0, 0)
    sources: Mapping[str, int] = attrs.field(factory=dict)
    certificates: Sequence[tuple[str, str, float]] = ()
    up: frozenset[tuple[str, str]] = frozenset()
    cluster: bool | None = None
    troubles: Sequence[str] = ()
    stale: Mapping[tuple[str, str], tuple[float | None, str]] = attrs.field(factory=dict)

    def stale_told(self) -> dict[tuple[str, str], str]:
        """Say in words how old the addresses are that cannot be found again, by backend and server."""
        return {
            key: f"addresses {length(age)} old: {why}" if age is not None else f"no address: {why}"
            for key, (age, why) in self.stale.items()
        }

    def stale_sentences(self) -> list[str]:
        """Return the same, a sentence each."""
        answers = self.stale_told().items()
        return [f"backend {backend}: {server}: {why}" for (backend, server), why in answers]

    def as_json(self) -> dict[str, Any]:
        """Return what ``/api/status`` tells of it."""
        opened, most = self.descriptors
        return {
            "descriptors": {"open": opened, "max": most},
            "certificates": [
                {"route": route, "file": file, "expires": until}
                for route, file, until in self.certificates
            ],
        }

    @classmethod
    def of(cls, answers: Iterable[Mapping[str, Any]]) -> Present:
        """Put together what processes have told."""
        answers = list(answers)
        generations = {number for one in answers for number in one.get("generations", ())}
        descriptors = [(one[0], one[1]) for one in _all(answers, "descriptors")]
        sources: dict[str, int] = {}
        for found in _all(answers, "sources"):
            for listener, count in found.items():
                # Workers count in the same memory.
                sources[listener] = max(count, sources.get(listener, 0))
        certificates = {
            (route, file): until
            for found in _all(answers, "certificates")
            for route, file, until in found
        }
        shared = [one for one in _all(answers, "cluster") if one is not None]
        return cls(
            max(1, len(generations)),
            min(descriptors, key=lambda one: one[1] - one[0], default=(0, 0)),
            sources,
            [(*key, until) for key, until in certificates.items()],
            frozenset(
                (backend, server) for found in _all(answers, "up") for backend, server in found
            ),
            all(shared) if shared else None,
            list(
                dict.fromkeys(trouble for found in _all(answers, "troubles") for trouble in found)
            ),
        )


def _all(answers: Iterable[Mapping[str, Any]], name: str) -> list[Any]:
    return [one[name] for one in answers if name in one]


def length(seconds: float) -> str:
    """Return a length of time by the largest unit of which there are two."""
    for unit, one in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * one:
            return f"{seconds // one:.0f} {unit}"
    return f"{seconds:.0f} s"
