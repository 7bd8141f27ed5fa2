"""Attacks on the endpoints ``admin`` and ``metrics``, by clients without the token."""

from __future__ import annotations

from campaign.hostile.attack import Attack, Target, crowd, flood
from campaign.hostile.configurations import TOKEN


def request(
    method: str, path: str, *lines: str, body: bytes = b"", host: str = "localhost"
) -> bytes:
    """Write a request with these lines in its head; the last one of its connection, unless they say otherwise."""
    length = [f"Content-Length: {len(body)}"] if body else []
    if not any(line.startswith("Connection:") for line in lines):
        length.append("Connection: close")
    head = [f"{method} {path} HTTP/1.1", f"Host: {host}", *length, *lines]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body


AUTHORIZED = f"Authorization: Bearer {TOKEN}"


def _wrong_token(target: Target) -> bytes:
    guess = target.chance.randbytes(16).hex()
    return request("GET", "/api/status", f"Authorization: Bearer {guess}")


def _largest(_: Target) -> bytes:
    return request("POST", "/login", "Content-Length: 65536") + b"[" * 65_000


def _many_requests(_: Target) -> bytes:
    return request("GET", "/metrics", "Connection: keep-alive") * 2000


ATTACKS = (
    Attack("admin: connections that say nothing", "ADMIN", flood(lambda _: b""), 5),
    Attack("admin: one byte a second", "ADMIN", crowd(_wrong_token, 1), 2),
    Attack(
        "admin: a byte of a body each second",
        "ADMIN",
        crowd(lambda _: b" " * 1000, 1, request("POST", "/login", "Content-Length: 1000")),
        2,
    ),
    Attack("admin: wrong tokens", "ADMIN", flood(_wrong_token), 5),
    Attack("admin: bodies that do not end", "ADMIN", flood(_largest), 5),
    Attack(
        "metrics: requests whose answers nobody reads",
        "METRICS",
        crowd(_many_requests, 4096),
        2,
        share=0.02,
    ),
)
