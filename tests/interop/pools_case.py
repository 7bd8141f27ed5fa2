"""Rules for tests of pools."""

from __future__ import annotations


def pool_rules(*servers: str, more: str = "") -> str:
    """Write rules that lead every client to a pool of these servers, with more lines for it."""
    lines = "\n    ".join(servers)
    return f"""
[listen public]
endpoint = 127.0.0.1:0

[route all]
match   = any
backend = pool

[backend pool]
server = {lines}
{more}
"""
