"""Matches the header of what Zabbix senders, agents, proxies and servers say to each other.

``ZBXD`` and the flags: always that of the protocol, and maybe those of compression and of large packets. What agents of
before Zabbix 4.0 are asked without a header is a *no*.
"""

from txmux.wire import Pattern, PlainMatcher

zabbix = PlainMatcher(
    "zabbix",
    "Zabbix senders, agents, proxies and servers, by the header",
    Pattern(rb"ZBXD[\x01\x03\x05\x07]"),
    source='"Zabbix documentation", "Header"',
)
