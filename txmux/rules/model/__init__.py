"""What a rules file says, as frozen values: no text left to parse, no name left to look up. One file a section."""

from txmux.rules.model.backend import (
    LOCAL,
    Backend,
    Balance,
    Check,
    CheckKind,
    ConsulService,
    Ejection,
    Outcome,
    Resolve,
    Server,
    ServerTLS,
    backends_of,
)
from txmux.rules.model.clients import Clients
from txmux.rules.model.files import Files
from txmux.rules.model.handover import Handover
from txmux.rules.model.keepalive import Keepalive
from txmux.rules.model.listener import Listener, Rate
from txmux.rules.model.logged import Logged, fewer
from txmux.rules.model.networks import IPAddress, IPNetwork, NetworkSet
from txmux.rules.model.period import Period
from txmux.rules.model.refusal import InProcess, Refusal
from txmux.rules.model.route import Alternative, Route
from txmux.rules.model.rules import Rules
from txmux.rules.model.section import NOWHERE, Entry, Item, Section
from txmux.rules.model.senders import Senders, Unix
from txmux.rules.model.settings import Settings
from txmux.rules.model.silence import Silence
from txmux.rules.model.tls import AllowedClient, TlsEnd, TLSMinimum
from txmux.rules.model.varying import Place, Varying

__all__ = [
    "LOCAL",
    "NOWHERE",
    "AllowedClient",
    "Alternative",
    "Backend",
    "Balance",
    "Check",
    "CheckKind",
    "Clients",
    "ConsulService",
    "Ejection",
    "Entry",
    "Files",
    "Handover",
    "IPAddress",
    "IPNetwork",
    "InProcess",
    "Item",
    "Keepalive",
    "Listener",
    "Logged",
    "NetworkSet",
    "Outcome",
    "Period",
    "Place",
    "Rate",
    "Refusal",
    "Resolve",
    "Route",
    "Rules",
    "Section",
    "Senders",
    "Server",
    "ServerTLS",
    "Settings",
    "Silence",
    "TLSMinimum",
    "TlsEnd",
    "Unix",
    "Varying",
    "backends_of",
    "fewer",
]
