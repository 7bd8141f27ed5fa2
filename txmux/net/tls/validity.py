"""When what a file has for TLS is valid: certificates, those of authorities, and revocation lists."""

from typing import NamedTuple

from txmux.telemetry.formatting import duration, plural, utc_time

_DAY = 86400
_SOON = 14 * _DAY
_LIST = "tls_client_crl"
_OTHERS = {"tls_ca": "the authority {} in", "tls_client_ca": "the authority {} in", _LIST: "the revocation list of {} in"}  # fmt: skip


class Validity(NamedTuple):
    """When one thing in a file is valid.

    Attributes:
        key: The key of the rules that names the file.
        file: Its path.
        name: The subject of an authority, the issuer of a revocation list; empty for the certificate that is shown.
        begins: In seconds since 1970, as `ends`.
        ends: 0 for the list of an authority of which the file has none that it has signed.
    """

    key: str
    file: str
    name: str
    begins: float
    ends: float

    @property
    def is_one_of_several(self) -> bool:
        """Whether others in the file let their clients in while it is not valid."""
        return self.key == "tls_client_ca" or self.is_missing

    @property
    def is_missing(self) -> bool:
        return self.key == _LIST and not self.ends

    @property
    def is_shown(self) -> bool:
        return self.key not in _OTHERS

    def what(self, quote: str = "") -> str:
        chain = "the certificate of {} in the chain of" if self.name else "the certificate"
        form = _OTHERS.get(self.key, chain)
        return f"{form.format(repr(self.name))} {quote}{self.file}{quote}"

    def is_valid(self, now: float) -> bool:
        return self.begins <= now < self.ends

    def when(self, now: float) -> str:
        """Say when it begins or ends, if an operator has to act.

        >>> Validity("terminate_tls", "a.pem", "", 0, 1796083200).when(1795820000)
        'ends in 3 days, on 2026-12-01 00:00 UTC'
        """
        if self.is_missing:
            return "is missing, or signed with another key"
        if self.begins > now:
            return f"becomes valid only {_at(self.begins, now)}"
        if self.ends <= now:
            return f"ended on {utc_time(self.ends)}"
        # Revocation lists are renewed every few days.
        soon = min(_SOON, (self.ends - self.begins) / 3) if self.key == _LIST else _SOON
        return f"ends {_at(self.ends, now)}" if self.ends - now < soon else ""


def _at(moment: float, now: float) -> str:
    left = moment - now
    days = int(left / _DAY)
    return f"in {plural(days, 'day') if days else duration(left)}, on {utc_time(moment)}"
