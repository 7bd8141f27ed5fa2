"""Attacks on the endpoints ``admin`` and ``metrics``, by clients without the token."""

from __future__ import annotations

from campaign.hostile.attack import Attack, Target, crowd, flood
from campaign.hostile.service import request


def _wrong_token(target: Target) -> bytes:
    guess = target.chance.randbytes(16).hex()
    return request("GET", "/api/status", f"Authorization: Bearer {guess}")


def _largest(_: Target) -> bytes:
    return request("POST", "/login", "Content-Length: 65536") + b"[" * 65_000


def _many_requests(_: Target) -> bytes:
    return request("GET", "/metrics", "Connection: keep-alive") * 2000


ATTACKS = (
    Attack("admin: connections that say nothing", "admin", flood(lambda _: b""), 5),
    Attack("admin: one byte a second", "admin", crowd(_wrong_token, 1), 2),
    Attack(
        "admin: a byte of a body each second",
        "admin",
        crowd(lambda _: b" " * 1000, 1, request("POST", "/login", "Content-Length: 1000")),
        2,
    ),
    Attack("admin: wrong tokens", "admin", flood(_wrong_token), 5),
    Attack("admin: bodies that do not end", "admin", flood(_largest), 5),
    Attack(
        "metrics: requests whose answers nobody reads",
        "metrics",
        crowd(_many_requests, 4096),
        2,
        share=0.02,
    ),
)
