"""The first packet of a PostgreSQL client."""

from __future__ import annotations

from typing import Any

from campaign.fuzz.target import Target, agree
from tests.matchers.all_samples import all_samples
from txmux.wire.postgres_startup import Startup, parse_startup


def _shown(startup: Startup) -> Any:
    return (
        startup.recognised,
        startup.malformed,
        startup.unusual,
        startup.is_request,
        startup.complete,
        startup.user,
        startup.database,
        startup.application,
    )


def _check(data: bytes) -> None:
    agree(parse_startup, data, _shown)


def _seeds() -> list[bytes]:
    return [*all_samples()["postgres"]]


_WORDS = (
    b"\0\0\0\x08\x04\xd2\x16\x2f", b"\0\0\0\x10\x04\xd2\x16\x2e", b"\0\3\0\0", b"user\0",
    b"database\0", b"application_name\0", b"replication\0",
)  # fmt: skip
TARGET = Target(_check, _seeds, words=_WORDS, longest=512)
