"""What is counted of misdirected requests."""

from txmux.telemetry.counting.counter_rows import Counter
from txmux.telemetry.documents import AddedField, DocumentField, ListenerDocument
from txmux.telemetry.presentation import Column

# fmt: off
MISDIRECTED = Counter(
    "misdirected_requests_total", "Requests of HTTP/2 that were answered 421, since the name that they asked for belongs to another route.",
    "In [TLS that ends here](rules.md#tls-termination).", cell="misdirected", group="listener")
ROWS = (
    MISDIRECTED,
    AddedField(ListenerDocument, DocumentField(
        "misdirected", int, "HTTP/2 requests [answered 421](rules.md#tls-termination)",
        Column("answered 421", "misdirected", goes=2), is_optional=True),
        lambda _, listener: MISDIRECTED.read(listener.cells) or None),
)
# fmt: on
