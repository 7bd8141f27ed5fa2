"""What the API, the metrics and the tables have of keys and opened hellos."""

import time
from typing import Any

from typing_extensions import TypedDict

from txmux.control.gauge import Gauge, list_of, merged
from txmux.net.channel.message import DATE, WORD, Field
from txmux.telemetry.counting.counter_rows import CounterByWord
from txmux.telemetry.documents import AddedField, DocumentField, ListenerDocument
from txmux.telemetry.formatting import duration
from txmux.telemetry.presentation import Column, Row

EchKeyDocument = TypedDict("EchKeyDocument", {"id": int, "public_name": str, "written": float})
Ech = TypedDict("Ech", {"keys": list[EchKeyDocument], "opened": int, "unopened": int})


def _hidden_names(listener: Row) -> str:
    """Name the published key, and how many hellos were opened."""
    ech: Row = listener.get("ech") or {}
    keys = [f"{key['public_name']} ({key['id']})" for key in ech.get("keys", ())]
    if not keys:
        return ""
    age = duration(time.time() - ech["keys"][0]["written"])
    older = f", {len(keys) - 1} older" if keys[1:] else ""
    count = f"{ech['opened']} of {ech['opened'] + ech['unopened']} opened"
    return f"{keys[0]}, {age} old{older}; {count}"


def _published(serving: Any) -> dict[str, list[tuple[int, str, float]]]:
    configurations = [listener.configuration for listener in serving.listeners]
    return {
        one.settings.name: opening.shown()
        for one in configurations
        for opening in one.openings
        if opening.key == "ech_keys"
    }


def _document(gauges: Any, listener: Any) -> dict[str, Any] | None:
    keys = gauges.of_features["ech"].get(listener.listener)
    if keys is None:
        return None
    named = [dict(zip(EchKeyDocument.__annotations__, key, strict=True)) for key in keys]
    return {"keys": named, **HELLOS.read(listener.cells)}


# fmt: off
HELLOS = CounterByWord(
    ("opened", "unopened"), "hidden_hellos_total", "Encrypted ClientHellos, by whether a key has opened them.",
    "Of listeners with [`ech_keys`](rules.md#encrypted-clienthello) that have had some.", label="result", cell="ech", group="listener",
    chosen=lambda by_word: by_word if any(by_word.values()) else ())
ROWS = (
    HELLOS,
    Gauge(
        "By listener, the keys by which it opens hidden hellos, the published one first: each its number, its public name, and when it was written, in seconds since 1970.",
        {}, name="ech", combine=merged(), bounds=Field(dict, of=list_of(Field(int), WORD, DATE)),
        collect=_published),
    AddedField(ListenerDocument, DocumentField(
        "ech", Ech, "with [`ech_keys`](rules.md#encrypted-clienthello): `keys`, the published one first, each with `id`, `public_name` and when it was `written`, and how many hellos were `opened` and `unopened`",
        Column("hidden names", "ech", value=_hidden_names, goes=2), is_optional=True), _document),
)
# fmt: on
