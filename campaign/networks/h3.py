"""A client of HTTP/3, as a program: it gets ``/COUNT``, and prints the SHA-256 of what it got."""

from __future__ import annotations

import asyncio
import hashlib
import sys

from tests.interop.quic.h3_client import client, configuration

_PROTOCOLS = 36
"""So many that the hello takes two datagrams."""


async def _main(host: str, port: str, name: str, count: str) -> None:
    settings = configuration(name, protocols=_PROTOCOLS)
    async with client(int(port), settings, host=host) as one:
        answer = await one.get(f"/{count}")
    sys.stdout.write(hashlib.sha256(answer.body).hexdigest())


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
