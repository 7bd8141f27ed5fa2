"""What may be meant by lines of ``match =``, whose matchers and options have other names elsewhere."""

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import takewhile

from txmux.interfaces import IProtocolMatcher
from txmux.rules.advice.habits import LIKE_HOST, each
from txmux.rules.advice.words import Texts, did_you_mean, with_advice, with_hint
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
    }.items()
    for word in words.split()
}
"""What others call a matcher."""

_EITHER = {
    "docker": "write 'http', or 'tls' if the daemon has certificates",
    "ftps": "write 'tls' if TLS comes first; else the server speaks first: write 'silent'",
    "hex": "write 'payload hex=00ff'",
    **each("begins bytes prefix starts_with text", "write 'payload text=HELLO'"),
    **each("pattern re regexp ~", "write 'regex pattern=^HELLO'"),
    **each("builtin probe", "write a protocol, as in 'ssh', or 'regex pattern=^HELLO'"),
    **each("client_ip clientip from ip remote_addr remote_ip source src", "write 'match = any' with 'from = NETWORKS'"),
    **each("starttls stls", "write 'match = tls' with 'starttls = smtp' in [listen NAME]"),
    **each("silence timeout", "write 'silent' for clients that say nothing"),
}  # fmt: skip
"""What to write for what others call a matcher, where one word does not say it."""

_COMMON = ["tls", "http", "ssh", "quic", "dns", "postgres", "redis", "rdp", "openvpn", "mqtt", "socks5", "http2", "grpc", "wireguard", "stun", "sip", "smb", "ldap", "mongodb", "xmpp", "git", "rtmp", "rtsp", "dtls"]  # fmt: skip
"""What is meant most often, in that order: of names that are equally near, it is named first."""

_FIRST_OPTIONS = {"http": "host", "payload": "text", "regex": "pattern", "ssh": "software", "tls": "sni"}  # fmt: skip
"""The option of which people write the value alone."""

_ALIASES: Mapping[str, Texts] = {
    **dict.fromkeys(("sni", "host", "hostname", "server_name", "servername"), ("sni", "host")),
    **dict.fromkeys(("domain", "hostsni", "req_ssl_sni", "sni_hostnames"), ("sni", "host")),
    **dict.fromkeys(("alpn_protocols", "alpns"), ("alpn",)),
}
"""By what others call an option: what it is called here, by one matcher or another."""
_KEYS = frozenset({"backend", "during", "from", "not_from", "under"})
"""Keys of a route that people write into its line."""
_ONE_VALUE = frozenset({"hex", "mask", "pattern", "text"})
"""Options whose value has no commas between several."""

_WAITS = "its clients wait for the server to speak, so no byte identifies them: write 'silent'"
_MOST_LISTED = 30
_JOINERS = frozenset({"and", "or", "not", "&&", "||", "&", "|", "!"})
_CALL = re.compile(r"(?P<name>[\w.-]+)\((?P<options>.*)\)")
_WELL_KNOWN = ("tls", "http")
_RULE = re.compile(r"(HostSNI|Host|Path|PathPrefix)\([`'\"]?([^`'\"()]+)[`'\"]?\)", re.IGNORECASE)
_OF_RULES = {"hostsni": "tls sni", "host": "http host", "path": "http path", "pathprefix": "http path"}  # fmt: skip
"""Options for the conditions of Traefik's rules."""


Matchers = Mapping[str, IProtocolMatcher]


def matcher(
    messages: Texts,
    name: str,
    rest: Texts,
    known: Matchers,
    listeners: Mapping[str, Sequence[Section]],
) -> Texts:
    message = messages[0]
    sections = itertools.chain(*listeners.values())
    if any(item.text == name for one in sections for item in one.items("starttls")):
        return [f"{message}; behind 'starttls = {name}' all clients speak TLS: write 'tls'"]
    if hint := _hint(name, rest, known):
        return [f"{message}; {hint}"]
    common = [one for one in _COMMON if one in known]
    message += did_you_mean(name, dict.fromkeys((*common, *known)))
    if len(known) > _MOST_LISTED:
        return [with_advice(message, "'txmux matchers' lists those there are")]
    return [f"{message} (there are {', '.join(sorted(known)) or 'none'})"]


def matcher_options(
    messages: Texts, matcher: str, words: Texts, takes: str, known: Matchers
) -> Texts:
    names = _options_of(known, matcher)
    wrong = _condition(words, known) or _unquoted(words, _JOINERS.union(known))
    wrong = wrong or _misplaced(words, names, known)
    return [f"{wrong} ({takes})"] if wrong else [*_of_each(messages, matcher, words, takes, names)]


def _of_each(
    messages: Texts, matcher: str, words: Texts, takes: str, names: Texts
) -> Iterator[str]:
    options: dict[str, str] = {}
    before, plain = "", iter(messages)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            hint = _without_equals(matcher, word, before, names, options)
            yield with_hint(next(plain), f"; {hint}")
        elif name in _KEYS - {*names}:
            next(plain)
            yield f"{word!r} is not an option; write '{name} = {value}' as a key ({takes})"
        elif name not in names:
            right = _called(name, names)
            hint = f"; write {right}={value}" if right else did_you_mean(name, names)
            yield with_hint(next(plain), hint)
        elif name in options:
            both = f"; several values have commas between them: '{name}={options[name]},{value}'"
            is_list = name not in _ONE_VALUE and "~" not in options[name] + value
            yield f"{next(plain)}{both if is_list else ''}"
        else:
            options[name] = value
        before = word


def _hint(name: str, rest: Texts, known: Matchers) -> str:
    if name.endswith(":") and len(name) > 1:
        return _hint(name[:-1], rest, known)
    word = name.casefold()
    meant = MEANT.get(word, "")
    for option, _, value in (other.partition("=") for other in rest):
        if meant == "tls" and value and option in {"host", "sni"}:
            meant = f"tls sni={value}"
    value = rest[-1].strip("'\"") if rest and "=" not in rest[-1] else ""
    if meant.endswith("=www.example.com") and LIKE_HOST.fullmatch(value):
        meant = meant.replace("www.example.com", value)
    option, equals, given = name.partition("=")
    rule = _RULE.match(" ".join((name, *rest)))
    of_rule = f"{_OF_RULES[rule[1].casefold()]}={rule[2]}" if rule else ""
    call = _CALL.fullmatch(name)
    called = " ".join(call.groups()).rstrip() if call else ""
    having = (
        f"{one} {right}={given}"
        for right in ((option, *_ALIASES.get(option, ())) if equals else ())
        for one in (*_WELL_KNOWN, *known)
        if right in _options_of(known, one)
    )
    of = next(having, "")
    hints = (
        (word == "not", f"write {' '.join(('not', *rest)).replace('not not', 'not')!r}"),
        (name.startswith("!"), f"write 'not {name[1:] or 'MATCHER'}'"),
        (word in MEANT and word not in known, f"write {meant!r}"),
        (word in _EITHER and word not in known, _EITHER.get(word, "")),
        (word in SERVER_FIRST, _WAITS),
        (rule, f"write '{of_rule}'"),
        (call and call["name"] in known, f"write '{called}'"),
        (name[:1] == "=" and name.lstrip("=") in known, f"write {name.lstrip('=')!r}"),
        (not call and of, f"the matcher comes first, as in '{of}'"),
        (equals and not call, "the matcher comes first; 'txmux matchers' lists those there are"),
        ("," in name, "write one matcher a line, without commas"),
    )
    return next((hint for applies, hint in hints if applies), "")


def _condition(words: Texts, known: Matchers) -> str:
    """Return what is wrong with a condition of HAProxy behind a matcher; empty if there is none."""
    if "if" not in words:
        return ""
    after = " ".join(words[words.index("if") + 1 :]).strip("{ }").split()
    name, *rest = [one for one in after if one[0] != "-"] or [""]
    hint = _hint(name, rest, known) or "write the condition as an option of the matcher"
    return f"'if' is not an option; {hint}"


def _misplaced(words: Texts, known: Collection[str], matchers: Collection[str]) -> str:
    """Return the one thing that makes the words after a matcher wrong; empty if each has a problem of its own."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        after = words[number + 1] if number + 1 < len(words) else ""
        if word in known and after.startswith("="):
            value = after[1:] or (words[number + 2] if number + 2 < len(words) else "VALUE")
            return f"no spaces around '='; write '{word}={value}'"
        if name in known and word.endswith("=") and after and "=" not in after:
            return f"no spaces around '='; write '{word}{after}'"
        beside = word.endswith(",") or after.startswith(",")
        if equals and beside and after and "=" not in after and name not in _ONE_VALUE:
            right = _called(name, known) or name
            values = re.sub(" ?, ?", ",", " ".join([value, *words[number + 1 :]]))
            return f"no spaces beside ','; write '{right}={values.partition(' ')[0]}'"
        if word == "\\":
            return "no backslash needed; indent the next line"
        if "=" not in word and (word in _JOINERS or word in matchers):
            advice = "write one matcher a line"
            if after.partition("=")[0] in known:
                advice = f"write {after!r} without it"
            elif word in {"and", "&&", "&", "not", "!"}:
                advice += ", any of which is enough; exclude clients with an earlier route"
            return f"{word!r} is not an option; {advice}"
    return ""


def _called(name: str, known: Collection[str]) -> str:
    return next((one for one in (name, *_ALIASES.get(name, ())) if one in known), "")


def _unquoted(words: Texts, others: frozenset[str]) -> str:
    """Return what is wrong with a value of bytes or text that has blanks and no quotes; empty if there is none."""
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        more = [*takewhile(lambda one: "=" not in one, words[number + 1 :])]
        if equals and name in _ONE_VALUE and more and others.isdisjoint(more):
            value = " ".join([value, *more])
            return f"'{name}={value}' has blanks and no quotes; write {name}='{value}'"
    return ""


def _without_equals(
    matcher: str, word: str, before: str, known: Collection[str], options: Collection[str]
) -> str:
    if word.startswith(",") or before.endswith(","):
        return "blanks beside a comma need quotes around the value"
    option, colon, value = word.partition(":")
    if colon and value and option in known:
        return f"did you mean '{option}={value}'?"
    begun = re.split(r"\W", word)[0]
    if begun in known or before in known:
        return f"write {begun}=VALUE" if begun in known else f"write '{before}={word}'"
    option, _, value = before.partition("=")
    if option in options:
        several = f"several values have commas between them: '{before},{word}'"
        return f"'{before} {word}' has a blank; write '{before}{word}'" if value == "~" else several
    if matcher in _FIRST_OPTIONS and not (before or word.startswith("-")):
        first = _FIRST_OPTIONS[matcher]
        if matcher == "http" and (word.isupper() or word.startswith("/")):
            first = "method" if word.isupper() else "path"
        return f"did you mean '{first}={word}'?"
    return "write OPTION=VALUE" if known else "remove it"


def _options_of(matchers: Matchers, name: str) -> Texts:
    with suppress(Exception):  # a plugin may do anything
        return [option.name for option in matchers[name].options]
    return ()
