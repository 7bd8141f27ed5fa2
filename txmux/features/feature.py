"""What a capability adds to the core: plain values, of which the core asks for what it needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

import attrs

from txmux.rules.model import Settings, Varying
from txmux.rules.reading.values import SectionKey


class NetworkSource(Protocol):
    """Where networks come from that change while the rules hold."""

    problem: str
    """Why the networks are out of date; empty if they are not."""

    def fetch_changes(self) -> Awaitable[Any]:
        """Return the new contents for all processes; ``None`` if nothing has changed."""


@attrs.frozen
class NetworkKind:
    """Networks that rules name as ``NAME:TEXT``; the name is that of the feature.

    Attributes:
        read: Reads ``NAME:TEXT``, with the settings, and with whether these are unknown; raises `InvalidValueError`.
        make_source: Makes what one process asks for all, from the reactor and what was read.
        seconds: How often that is asked.
        meanwhile: What holds while it has no good answer.
        not_allowed: Why it cannot be in ``allow`` and the like; empty if it can be.
    """

    read: Callable[[str, Settings, bool], Varying]
    make_source: Callable[[Any, Varying], NetworkSource]
    seconds: float
    meanwhile: str
    not_allowed: str = ""


@attrs.frozen
class Feature:
    """One optional capability.

    Attributes:
        name: That of its folder, and of the part in messages.
        keys: Its keys, by the kind of section. Their values are in `Settings.more`.
        networks: What rules may name by ``NAME:``.
    """

    name: str
    keys: Mapping[str, Mapping[str, SectionKey]] = attrs.field(factory=dict)
    networks: NetworkKind | None = None
