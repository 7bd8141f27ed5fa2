"""The contents of a rules file, as frozen values: all texts are parsed, all names looked up. One module a section."""

from txmux.rules.model.backend import (
    LOCAL,
    NAMES,
    PORT,
    AllowedNames,
    Backend,
    Balance,
    Check,
    CheckKind,
    Ejection,
    ForwardProxy,
    Handover,
    InProcess,
    Outcome,
    Refusal,
    Resolve,
    Server,
    ServerTLS,
    backends_of,
)
from txmux.rules.model.client_certificate import (
    NO_CERTIFICATE,
    REVOKED,
    AllowedClient,
    CertificateCondition,
    FoundCertificate,
)
from txmux.rules.model.files import Files
from txmux.rules.model.listener import SHORT_FORM, Listener, Logged, Rate, Silence, fewer
from txmux.rules.model.networks import (
    AnyNetworks,
    Clients,
    DynamicNetworks,
    IPNetwork,
    NetworkSet,
    Public,
    Reachable,
    Senders,
    UnixClients,
)
from txmux.rules.model.route import Alternative, Opening, Period, Route, TLSMinimum, TlsSettings
from txmux.rules.model.rules import Rules
from txmux.rules.model.section import NOWHERE, KeyEntry, Section, ValueLine
from txmux.rules.model.settings import Settings
from txmux.transport import Keepalive

__all__ = [
    "LOCAL", "NAMES", "NOWHERE", "NO_CERTIFICATE", "PORT", "REVOKED", "SHORT_FORM", "AllowedClient",
    "AllowedNames", "Alternative", "AnyNetworks", "Backend", "Balance", "CertificateCondition",
    "Check", "CheckKind", "Clients", "DynamicNetworks", "Ejection",
    "Files", "ForwardProxy", "FoundCertificate", "Handover", "IPNetwork", "InProcess", "Keepalive", "KeyEntry",
    "Listener", "Logged", "NetworkSet", "Opening", "Outcome", "Period", "Public", "Rate", "Reachable",
    "Refusal", "Resolve", "Route", "Rules", "Section", "Senders", "Server", "ServerTLS", "Settings",
    "Silence", "TLSMinimum", "TlsSettings", "UnixClients", "ValueLine",
    "backends_of", "fewer",
]  # fmt: skip
