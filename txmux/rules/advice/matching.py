"""What may be meant by lines of ``match =``, whose matchers have other names elsewhere."""

import itertools
from collections.abc import Mapping, Sequence

from txmux.interfaces import IProtocolMatcher
from txmux.rules.advice.words import Texts, did_you_mean, with_advice
from txmux.rules.model import Section

_MAIL_FIRST = ("smtp", "lmtp", "imap", "pop3", "managesieve")
SERVER_FIRST = frozenset((*_MAIL_FIRST, "mysql", "mariadb", "nntp", "ftp", "vnc", "nats"))
"""Protocols in which the client waits for the server, so that nothing of it can be recognised."""

MEANT = {
    word: meant
    for meant, words in {
        "any": "* all default anyprot tcp udp",
        "tls": "ssl https wss imaps ldaps smtps mqtts amqps telnets ircs nntps pop3s rediss rtmps sips xmpps acme doh tls1.2 tls1.3 tlsv1.2 tlsv1.3 trojan vless",
        "tls sni=www.example.com": "sni hostsni req.ssl_sni req_ssl_sni server_name servername sni_hostnames ssl_fc_sni ssl_preread_server_name",
        "tls alpn=h2": "h2 grpcs ssl_preread_alpn_protocols",
        "tls alpn=dot": "dot",
        "quic alpn=h3": "http3 http/3 h3",
        "quic alpn=doq": "doq",
        "dtls alpn=coap": "coaps",
        "http2": "h2c",
        "http upgrade=websocket": "websocket ws",
        "http host=www.example.com": "host",
        "http path=/api/*": "path path_beg",
        "http": "http1 http/1.1 web www rest webdav upnp",
        "ssh": "openssh sshd sftp scp",
        "rdp": "msrdp mstsc remote-desktop ms-wbt-server",
        "tds": "mssql sqlserver sql-server",
        "tns": "oracle oracledb",
        "postgres": "postgresql psql pgsql pg cockroachdb",
        "mongodb": "mongo documentdb",
        "redis": "valkey keydb resp",
        "cassandra": "cql scylla scylladb",
        "bolt": "neo4j memgraph",
        "memcached": "memcache",
        "elasticsearch": "opensearch",
        "amqp": "rabbitmq amqp091",
        "zeromq": "zmq zmtp 0mq",
        "mqtt": "mosquitto hivemq",
        "xmpp": "jabber",
        "icecast": "icecast2 shoutcast",
        "smb": "cifs samba",
        "sunrpc": "rpc oncrpc",
        "sunrpc program=nfs": "nfs",
        "sunrpc program=portmapper": "portmap portmapper rpcbind",
        "dcerpc": "msrpc epmap",
        "kerberos": "krb5 krb kdc",
        "ldap": "cldap activedirectory",
        "bittorrent": "torrent utp dht",
        "socks5": "socks socks5h",
        "socks4": "socks4a",
        "proxy": "proxyprotocol proxy_protocol pp haproxy",
        "random": "shadowsocks vmess obfs4 hysteria",
        "wireguard": "wg",
        "openvpn": "ovpn",
        "ike": "ipsec isakmp ikev2",
        "stun": "turn webrtc ice",
        "dns": "domain",
        "erlang": "epmd",
        "raknet": "bedrock mcpe",
        "source-engine": "steam a2s srcds",
        "teamspeak": "ts3 teamspeak3",
        "jsonrpc": "stratum",
        "s7": "s7comm iso-tsap",
        "enip": "ethernetip ethernet-ip ethernet/ip cip",
        "iec104": "iec-104 iec60870 iec60870-5-104",
        "modbus": "modbus-tcp modbustcp mbap",
        "opcua": "opc-ua",
        "payload text=HELLO": "begins bytes prefix starts_with text",
        "payload hex=00ff": "hex",
        "regex pattern=^HELLO": "pattern re regexp ~ builtin probe",
        "silent": "silence timeout",
    }.items()
    for word in words.split()
}
"""What others call a matcher."""

_COMMON = ["tls", "http", "ssh", "quic", "dns", "postgres", "redis", "rdp", "openvpn", "mqtt", "socks5", "http2", "grpc", "wireguard", "stun", "sip", "smb", "ldap", "mongodb", "xmpp", "git", "rtmp", "rtsp", "dtls"]  # fmt: skip
"""What is meant most often, in that order: of names that are equally near, it is named first."""

_WAITS = "its clients wait for the server to speak, so no byte identifies them: write 'silent'"
_MOST_LISTED = 30


def matcher(
    messages: Texts,
    name: str,
    known: Mapping[str, IProtocolMatcher],
    listeners: Mapping[str, Sequence[Section]],
) -> Texts:
    message, word = messages[0], name.casefold()
    sections = itertools.chain(*listeners.values())
    is_inside = any(item.text == name for one in sections for item in one.items("starttls"))
    hints = (
        (is_inside, f"behind 'starttls = {name}' all clients speak TLS: write 'tls'"),
        (word in SERVER_FIRST, _WAITS),
        (word in MEANT and word not in known, f"write {MEANT.get(word)!r}"),
        (word.startswith("!"), f"write 'not {name[1:] or 'tls'}'"),
        (word == "not", "write for example 'not tls'"),
        ("=" in name, "the matcher comes first, as in 'tls sni=www.example.com'"),
    )
    if hint := next((hint for applies, hint in hints if applies), ""):
        return [f"{message}; {hint}"]
    common = [one for one in _COMMON if one in known]
    message += did_you_mean(name, dict.fromkeys((*common, *known)))
    if len(known) > _MOST_LISTED:
        return [with_advice(message, "'txmux matchers' lists those there are")]
    return [f"{message} (there are {', '.join(sorted(known)) or 'none'})"]
