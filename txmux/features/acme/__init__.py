"""Certificates by ACME (RFC 8555), which are renewed in time: ``terminate_tls = acme``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from txmux.rules.feature import Feature
from txmux.rules.model import Rules
from txmux.rules.problems import Problem

if TYPE_CHECKING:
    from txmux.client.parts import ServiceContext, ServicePart, ServingContext, ServingPart

_STORE = "shared_limits"

# What few rules need is imported where they do: OpenSSL takes a while.


def _part(context: ServiceContext) -> ServicePart:
    from txmux.features.acme.renewal import Certificates  # noqa: PLC0415 - as above

    def send(**values: Any) -> Any:
        return context.send("acme", values)

    return Certificates(
        context.reactor, lambda challenges: send(challenges=challenges), lambda: send(renewed=True)
    )


def _serving_part(context: ServingContext) -> ServingPart:
    from txmux.features.acme.challenges import Challenges  # noqa: PLC0415 - as above

    return Challenges(context)


def _rows() -> Sequence[Any]:
    from txmux.features.acme.rows import ROWS  # noqa: PLC0415 - commands do without them

    return ROWS


def _unusable(rules: Rules) -> Iterable[Problem]:
    if not rules.acme_names:
        return ()
    from txmux.features.acme.folder import unusable  # noqa: PLC0415 - as above

    return unusable(rules)


def _open_secrets(rules: Rules) -> Iterator[Problem]:
    store = rules.settings.more.get(_STORE)
    if store is not None and store.password is None and rules.acme_names:
        message = "anyone who can read this Redis can read the keys of ACME certificates, and anyone who can write to it can get certificates for their names; set a password in Redis, and add password=FILE after the address"
        yield rules.settings.section.problem(message, _STORE)


# fmt: off
FEATURE = Feature(
    "acme",
    needed=lambda rules: bool(rules.acme_names),
    part=_part,
    serving_part=_serving_part,
    rows=_rows,
    sources=("acme", "certificates"),
    uses=("sharing",),
    unusable=_unusable,
    open_secrets=_open_secrets,
)
# fmt: on
