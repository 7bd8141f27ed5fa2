"""The version of the rules and the last reload in the state for the successor."""

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import attrs

from txmux.control.control import Control
from txmux.control.report import Report
from txmux.processes.supervisor.supervisor import Supervisor
from txmux.rules.model import Rules
from txmux.serving.state import TransferState

LastReload = tuple[float, Report] | None


async def collect_state(
    supervisor: Supervisor, control: Control, *, again: bool = False
) -> TransferState:
    """Return the state to hand over; see `txmux.serving.state` and `Supervisor.state_to_hand_over`."""
    when, report = control.last_reload or (0.0, None)
    rules = {
        "number": supervisor.version,
        "digest": _digest(control.rules),
        "last_reload": None if report is None else {"time": when, **report.as_json()},
    }
    state = await supervisor.state_to_hand_over(again=again)
    # The successor reads files by itself.
    networks = {
        name: contents
        for name, contents in state["networks"].items()
        if name.partition(":")[0] != "file"
    }
    return {**state, "networks": networks, "rules": rules, "history": control.rates.as_json()}


def number_in(state: Mapping[str, Any], rules: Rules) -> int:
    """Return the version of the rules that this process has read: that of the predecessor, or the next one if they differ."""
    before: Mapping[str, Any] = state.get("rules", {})
    number = int(before.get("number", 0))
    return number + (not number or before.get("digest") != _digest(rules))


def last_reload_in(state: Mapping[str, Any]) -> LastReload:
    """Return the last reload of the predecessor; ``None`` if there was none.

    A failed one no longer matters: the new process has read the rules itself, and serves by them.
    """
    reload = state.get("rules", {}).get("last_reload")
    if reload is None:
        return None
    if not reload["ok"]:
        return time.time(), Report(ok=True, changes="the rules were read by an upgrade")
    return reload["time"], Report(ok=True, changes=reload["changes"])


def _digest(rules: Rules) -> str:
    """Return a digest of the text of rules."""
    texts = json.dumps(attrs.asdict(rules.files), sort_keys=True)
    return hashlib.sha256(texts.encode()).hexdigest()
