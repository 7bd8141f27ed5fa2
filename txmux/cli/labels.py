"""Keys of routes and backends that labels and annotations ``txmux.KEY`` may set, and how they are read. Pure."""

import re
from collections.abc import Collection, Mapping, Sequence

from txmux.errors import MuxError, printable
from txmux.rules.advice.words import did_you_mean
from txmux.rules.reading.sections import TABLES

PREFIX = "txmux."
"""What the names begin with."""

KEYS = frozenset({*TABLES["route"], *TABLES["backend"]})
"""All keys of routes and backends, those of features among them."""

ALLOWED = frozenset({
    "alpn", "answers", "balance", "check", "connect_timeout", "download_rate", "dry_run", "during",
    "eject", "end_on_down", "from", "hold", "hold_limit", "idle_timeout", "max_connections",
    "max_duration", "not_from", "proxy_protocol", "proxy_tlvs", "queue", "retries", "slow_start",
    "terminate_tls", "tls", "tls_name", "unanswered_timeout", "upload_rate",
})  # fmt: skip
"""Keys that give a container nothing of the host's: no file, no address but its own, no name. Some are so only in part."""
_LABEL = re.compile(r"(?:([A-Za-z0-9_-]+)\.)??([a-z_0-9]+)(?:\.([0-9]{1,9}))?")
_LONGEST, _MOST = 4096, 200  # characters of a value, labels of an object

Keys = Mapping[str, Sequence[str]]
"""The lines of values, by keys."""


class LabelError(MuxError):
    """An object cannot be served; the message says which label is wrong, and what would be right."""


def read_by_route(
    labels: Mapping[str, str], known: Collection[str], of_object: Collection[str] = ()
) -> dict[str, dict[str, list[str]]]:
    """Return the lines of each key, by the names of routes; there is at least the one without a name.

    Args:
        labels: Without `PREFIX`: ``KEY``, ``KEY.2`` and so on for a further line, and ``NAME.KEY`` for another route.
        known: The keys that there are.
        of_object: Those of them that are of the whole object; they are not returned.

    Raises:
        LabelError: There are too many, or one is wrong.
    """
    if len(labels) > _MOST:
        raise LabelError(f"it has more than {_MOST} labels that begin with {PREFIX}")
    found = []
    for label, text in labels.items():
        parts = _LABEL.fullmatch(label)
        if parts is None or parts[2] not in known or (parts[1] and parts[2] in of_object):
            hint = did_you_mean(label.split(".")[-1], sorted(known))
            raise LabelError(f"txmux.{printable(label, 80)}: there is no such label{hint}")
        value = text.strip()
        why = ""
        if not value:
            why = "is empty"
        elif len(value) > _LONGEST:
            why = f"has more than {_LONGEST} characters"
        elif not value.isprintable() or value[0] in "#;":
            why = f"must be one line of text; a further line is txmux.{label}.2"
        if why:
            raise LabelError(f"txmux.{label}: {why}")
        # A single $ would begin a variable of the service's environment.
        found.append((parts[1] or "", parts[2], int(parts[3] or 1), value.replace("$", "$$")))
    routes: dict[str, dict[str, list[str]]] = {}
    for name, key, _, value in sorted(found):
        if key not in of_object:
            routes.setdefault(name, {}).setdefault(key, []).append(value)
    return routes or {"": {}}


def all_that_labels_may_set(key: str, values: Sequence[str], *, is_own_address: bool) -> str:
    """Return what labels may set of a key, if these values are more; empty if they are not.

    `is_own_address` says whether all ports of the server's address are those of the object.
    """
    text = re.sub(r"[\"'\\]", "", " ".join(values))  # no quote hides a word
    if key not in ALLOWED:
        return "nothing there"
    if key == "terminate_tls" and any(value.split()[0] != "acme" for value in values):
        return "acme, no file"
    if key in {"from", "not_from"} and "@" in text:
        return "networks, no file"
    if key == "check" and not is_own_address and "port=" in text:
        return "no other port, which would be one of the host"
    return ""


def is_of_route(key: str, keys: Collection[str]) -> bool:
    # A few keys are of ``[backend]``, too.
    return key in TABLES["route"] and (key not in TABLES["backend"] or "terminate_tls" in keys)


def section(kind: str, name: str, keys: Keys) -> str:
    """Return a section with its keys, from their lines."""
    lines = [f"[{kind} {name}]"]
    lines += [f"{key} = " + "\n    ".join(values) for key, values in keys.items()]
    return "\n".join(lines)
