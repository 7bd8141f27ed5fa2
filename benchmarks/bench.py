"""What all measures share: the machine, the servers, and what there is to say."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

import attrs

from benchmarks import proxies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from benchmarks.proxies import Proxy, Running
    from benchmarks.servers import Servers


@attrs.frozen
class Figure:
    """One figure of a measure.

    Attributes:
        key: How it is called in results.
        title: What it is.
        unit: Of what.
        digits: How many stand after the point.
        more_is_better: As it says.
    """

    key: str
    title: str
    unit: str
    digits: int = 1
    more_is_better: bool = False


@attrs.define
class Bench:
    """One proxy, measured once.

    Attributes:
        folder: For files.
        servers: The servers behind the proxies.
        proxy_cores: The CPU cores of the proxies.
        load_cores: Those of the servers and of what makes the load.
        quick: Whether everything is done on a small scale.
        notes: What a reader of the figures should know.
    """

    folder: Path
    servers: Servers
    proxy_cores: Sequence[int]
    load_cores: Sequence[int]
    quick: bool
    notes: list[str] = attrs.field(factory=list)

    def size(self, usual: int, quick: int) -> int:
        """Choose how much to do."""
        return quick if self.quick else usual

    @contextlib.contextmanager
    def running(
        self,
        proxy: Proxy,
        *,
        workers: int = 1,
        other: str = "redis",
        cores: Sequence[int] | None = None,
    ) -> Iterator[Running]:
        """Run a fresh proxy, see `proxies.running`; on its own cores, if no others are given."""
        with proxies.running(
            proxy,
            self.servers,
            self.folder,
            cores or self.proxy_cores,
            workers=workers,
            other=other,
        ) as started:
            yield started


class Measure(Protocol):
    """A module in ``benchmarks/measures``."""

    @property
    def NAME(self) -> str:
        """How it is called on the command line."""
        ...

    @property
    def FIGURES(self) -> tuple[Figure, ...]:
        """What it finds out."""
        ...

    def measure(self, bench: Bench, proxy: Proxy) -> dict[str, float]:
        """Measure once.

        Returns:
            The value of each figure, by its key. None at all, if the proxy has nothing to measure there.

        Raises:
            BenchmarkError: It went wrong.
        """
        ...
