"""What all measures share: the machine, the servers, and what there is to say."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import attrs

from benchmarks import proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
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
        base: The family of proxies whose multiple is shown beside it, the best of each.
    """

    key: str
    title: str
    unit: str
    digits: int = 1
    more_is_better: bool = False
    base: str = "haproxy"


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
        tls: bool = False,
        asks: bool = True,
    ) -> Iterator[Running]:
        """Run a fresh proxy, see `proxies.running`; on its own cores, if no others are given."""
        with proxies.running(
            proxy,
            self.servers,
            self.folder,
            cores or self.proxy_cores,
            workers=workers,
            other=other,
            tls=tls,
            asks=asks,
        ) as started:
            yield started

    @contextlib.contextmanager
    def running_udp(self, proxy: Proxy, *, bulk: int = 9, names: int = 9) -> Iterator[Running]:
        """Run a fresh proxy of datagrams, see `proxies.running_udp`, on its own cores."""
        servers = {"BULK": bulk, "NAMES": names}
        with proxies.running_udp(proxy, servers, self.folder, self.proxy_cores) as started:
            yield started


@attrs.frozen
class Measure:
    """Something to measure.

    Attributes:
        name: How it is called on the command line.
        figures: What it finds out.
        measure: Measures a proxy once, and gives the value of each figure by its key; none at all, if the proxy has nothing to
            measure there. Raises `BenchmarkError` if it went wrong.
        rounds: In how many rounds at most: what is not a matter of time comes out the same each time.
        ours: Whether only txmux has it.
        by_name: Whether it is left out unless it is asked for by its name, since it takes long.
    """

    name: str
    figures: tuple[Figure, ...]
    measure: Callable[[Bench, Proxy], dict[str, float]]
    rounds: int = 1000
    ours: bool = False
    by_name: bool = False
