"""Servers that Consul knows: ``server = consul:SERVICE``."""

from txmux.features.consul.reading import CONSUL, OPTIONS, ConsulAPI, consul_api, consul_server
from txmux.rules.feature import Feature
from txmux.rules.optional import imported_late
from txmux.rules.reading.endpoints import ServerKind
from txmux.rules.reading.values import KeyFiles, SectionKey, ValueKind

_API = ValueKind(
    consul_api,
    "URL: `http:`, `https:` or `unix:`; `[token=FILE]`",
    in_context=True,
    paths=lambda api: (api.token,),
)


# fmt: off
FEATURE = Feature(
    "consul",
    keys={"txmux": {
        CONSUL: SectionKey(_API, default=ConsulAPI().url, example="http://127.0.0.1:8500 token=/etc/txmux/secrets/consul.token", usual=ConsulAPI(), files=KeyFiles("supervisor", is_secret=True, reader="txmux.net.secrets:read_key"), shapes_others=True, meaning=
            "Consul's HTTP API is here, for servers such as [`consul:web`](#services-of-consul)"),
    }},
    servers=ServerKind(CONSUL, consul_server, OPTIONS, ("passing",), imported_late("txmux.features.consul.finding:ConsulAgents")),
    hints={
        "txmux": {"consul_token": "write it after the URL: 'consul = http://127.0.0.1:8500 token=FILE'"},
        "backend": dict.fromkeys(("consul", "consul_token"), "write 'consul = http://127.0.0.1:8500 token=FILE' in [txmux]"),
    },
)
# fmt: on
