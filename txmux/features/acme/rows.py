"""What the metrics have of certificates by ACME."""

from txmux.control.gauge import Gauge
from txmux.telemetry.counting.counter_rows import Metric

# fmt: off
ROWS = (
    Gauge(
        "By name.", {}, name="acme", own=lambda state, _: state.parts["acme"].seconds_left() if "acme" in state.parts else {},
        metrics=[Metric("certificate_expires_seconds", "In how many seconds a certificate expires that comes by ACME; 0 if there is none yet.", "name",
                        lambda value, _: [([name], left) for name, left in value.items()], "Below a third of its time, or half of less than ten days, it could not be [renewed](rules.md#certificates-by-acme).")]),
)
# fmt: on
