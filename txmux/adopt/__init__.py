"""For servers that receive client sockets from txmux: a Twisted endpoint, ``txmux:/run/x.sock``, and its parts."""

from txmux.adopt.endpoint import AdoptedTransport, AdoptingEndpoint
from txmux.adopt.receiving import HandedOver, NotGivenError, receive

__all__ = ["AdoptedTransport", "AdoptingEndpoint", "HandedOver", "NotGivenError", "receive"]
