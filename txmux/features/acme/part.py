"""Keeps the certificates by ACME of a service: in the supervisor, for all workers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from twisted.internet.defer import Deferred, succeed

from txmux.control.broadcast import broadcast
from txmux.control.overrides import ServiceState
from txmux.net.channel import messages
from txmux.processes.workers.pool import WorkerPool
from txmux.rules.model import Rules

_ANNOUNCED = 30.0  # seconds that a worker has to take challenges


class AcmeCertificates:
    """Renews them, and has workers answer challenges. Without such certificates, nothing is imported for them."""

    def __init__(self, reactor: Any, pool: WorkerPool, state: ServiceState) -> None:
        self._reactor = reactor
        self._pool = pool
        self._state = state

    @property
    def challenges(self) -> Mapping[str, str]:
        certificates = self._state.certificates
        return {} if certificates is None else certificates.challenges

    def prepare(self, rules: Rules, owner: tuple[int, int] | None) -> None:
        """Make the first certificates for names of rules; what fails from the commit on could not be undone."""
        if rules.acme_names:
            from txmux.serving.acme.folder import make_first  # noqa: PLC0415 - OpenSSL takes a while

            import_module("txmux.serving.acme.renewal")
            certificates = self._state.certificates
            in_use = {} if certificates is None else certificates.in_use()
            make_first(rules, owner, time.time(), in_use)

    def commit(self, rules: Rules) -> None:
        certificates = self._state.certificates
        if certificates is None and rules.acme_names:
            from txmux.serving.acme.renewal import Certificates  # noqa: PLC0415 - as above

            certificates = self._state.certificates = Certificates(
                self._reactor, self._announce, lambda: self._pool.send_to_all(messages.CERTIFICATES)
            )
        if certificates is not None:
            certificates.commit(rules)

    def _announce(self, challenges: Mapping[str, str]) -> Deferred[Any]:
        # Workers that are still starting get the challenges with their start message.
        ready = [worker for worker in self._pool.all() if worker.ready]
        asking = broadcast(ready, messages.CHALLENGES, seconds=_ANNOUNCED, challenges=challenges)
        return Deferred.fromCoroutine(asking)

    def tick(self) -> None:
        if self._state.certificates is not None:
            self._state.certificates.tick()

    def stop(self) -> Deferred[Any]:
        certificates = self._state.certificates
        return succeed(None) if certificates is None else certificates.stop()
