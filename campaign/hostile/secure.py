"""Attacks by TLS: what a server of it can be made to work for, and to remember."""

from __future__ import annotations

from benchmarks.flood import garbage
from campaign.hostile.attack import Attack, Target, flood, paced
from campaign.hostile.plain import hello, records
from tests.support.updating import UpdatingClient

_AT_ONCE = 20


def _tls_garbage(target: Target) -> bytes:
    # A whole hello, and then what is not what should come.
    if target.chance.random() < 0.3:
        return records(hello(), 2**14) + target.chance.randbytes(2000)
    return garbage()


def _update(target: Target) -> None:
    """Have connections send nothing but wishes for other keys, and read nothing."""
    clients: list[UpdatingClient] = []
    number = 0

    def once() -> None:
        nonlocal number
        if len(clients) < _AT_ONCE:
            clients.append(UpdatingClient(target.port))
        number = (number + 1) % len(clients)
        if not clients[number].update() and not clients[number].is_open():
            clients.pop(number).close()

    paced(target, 20_000, once)


ATTACKS = (
    Attack("garbage for TLS", "tls", flood(_tls_garbage), 5, share=0.2),
    Attack("KeyUpdate, answers not read", "tls", _update, 2, "updates"),
)
