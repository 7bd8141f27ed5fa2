"""What one process tells of itself beside its counters: see `txmux.telemetry.counting.present.Present`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmux.backends.pool.server_health import State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from txmux.backends.upstream import Upstream
    from txmux.serving.serving import Serving
    from txmux.tcp.configuration import Configuration

__all__ = ["gauges_of"]


def gauges_of(serving: Serving) -> dict[str, Any]:
    """Return what changes with time, as values of JSON."""
    shared = serving.runtime.shared
    configurations = [factory.configuration for factory in serving.factories]
    upstreams = {one for factory in serving.factories for one in factory.upstreams.all()}
    return {
        "generations": sorted(
            {serving.version, *(one.configuration.version for one in serving.connections())}
        ),
        "descriptors": serving.runtime.descriptors.count_and_limit(),
        "sources": {
            one.settings.name: one.admission.per_source.tracked()
            for one in configurations
            if one.admission.per_source is not None
        },
        "certificates": sorted({found for one in configurations for found in _certificates(one)}),
        "troubles": serving.terminations.troubles(),
        "cluster": None if shared is None or not shared.is_wanted else shared.is_up,
        "up": sorted({found for one in upstreams for found in _up(one)}),
    }


def _certificates(configuration: Configuration) -> Iterator[tuple[str, str, float]]:
    for level in configuration.levels:
        for route in level.detector.routes:
            if route.termination is not None:
                for file, until in route.termination.store.valid_until():
                    yield route.name, file, until


def _up(upstream: Upstream) -> Iterator[tuple[str, str]]:
    for member in upstream.pool.members:
        if member.state is State.UP:
            yield upstream.backend.name, member.server.text
