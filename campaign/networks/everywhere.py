"""A plugin of pytest: each network namespace that a test makes is as bad as the one where the tests are."""

from __future__ import annotations

import os
from functools import partial

from campaign.networks.conditions import CONDITIONS
from tests.interop import namespaces

NETWORK = "TXMUX_BAD_NETWORK"
"""The variable of the environment that names the condition."""

ONLY_TCP = "meta l4proto tcp"
"""What may get lost there: programs that use UDP are not all made to ask again."""

if NETWORK in os.environ:
    condition = CONDITIONS[os.environ[NETWORK]]
    namespaces.habits.append(partial(condition.spoil_itself, only=ONLY_TCP))
