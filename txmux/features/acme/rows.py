"""What the metrics have of certificates by ACME, and what needs attention."""

from functools import partial

from txmux.control.gauge import Gauge
from txmux.telemetry.attention import AttentionRow
from txmux.telemetry.attention_rows import renewal
from txmux.telemetry.counting.counter_rows import Metric

_RENEW = "txmux certificates --renew {name}"

# fmt: off
_own_certificate = partial(renewal, text="{name} {provisional}", cause="{why}", do=_RENEW, subject="{name}")
_not_renewed = partial(renewal, cause="{why}", do=_RENEW, subject="{name}")
NO_CERTIFICATE = _own_certificate(level="critical", when="a first certificate could not be had by ACME")
ENDED_NOT_RENEWED = _not_renewed(level="critical", text="the certificate of {name} ended on {until}, and could not be renewed", when="one has ended and could not be renewed")
ENDS_NOT_RENEWED = _not_renewed(level="warning", text="the certificate of {name} ends on {until}, and could not be renewed", when="one could not be renewed")
CERTIFICATE_AWAITED = _own_certificate(level="warning", when="a first one has not come yet")
CERTIFICATES_NOT_KEPT = renewal(
    level="warning", text="{text}", do="let the service write there; it is tried again by itself", subject="the folder", when="their folder cannot be written")
OTHER_ASKS = renewal(
    level="warning", text="another machine has asked for certificates for {age}, and given none", do="if there is none, delete the key 'txmux:acme:lock' in Redis",
    subject="the lock", when="another machine has asked for them for long, and given none")
SHARED_UNUSABLE = renewal(
    level="warning", text="another machine has put a certificate for {name} into Redis that cannot be used", cause="{why}", do=_RENEW, subject="{name} in Redis",
    is_logged=False, when="it has given one that cannot be used")

ROWS = (
    *(value for value in vars().values() if isinstance(value, AttentionRow)),
    Gauge(
        "By name.", {}, name="acme", own=lambda state, _: state.parts["acme"].seconds_left() if "acme" in state.parts else {},
        metrics=[Metric("certificate_expires_seconds", "In how many seconds a certificate expires that comes by ACME; 0 if there is none yet.", "name",
                        lambda value, _: [([name], left) for name, left in value.items()], "Below a third of its time, or half of less than ten days, it could not be [renewed](rules.md#certificates-by-acme).")]),
)
# fmt: on
