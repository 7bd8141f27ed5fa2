"""What may be meant by places to listen and to connect to, and by outcomes, that are written as elsewhere."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping

from txmux.errors import joined
from txmux.rules.advice.habits import ENDS_TLS_HERE, REDIRECTS, each, without_scheme
from txmux.rules.advice.words import (
    Texts,
    did_you_mean,
    instead_of_list,
    nearest,
    with_advice,
)
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.endpoints import NAME_OF_SERVER
from txmux.rules.reading.values import NAME
from txmux.transport import is_address

_AFTER_SERVERS: Mapping[str, tuple[str, int]] = {
    **dict.fromkeys(("disabled", "inactive"), ("write 'down'", 0)),
    **dict.fromkeys(("max_conns", "maxconn"), ("write max_connections=NUMBER", 1)),
    "resolve": ("remove it: names are looked up again when they expire", 0),
    "send-proxy": ("write 'proxy_protocol = v1' as a key", 0),
    "send-proxy-v2": ("write 'proxy_protocol = v2' as a key", 0),
    "sni": ("write 'tls_name = NAME' beside 'tls = yes' as a key", 1),
    "ssl": ("write 'tls = yes' as a key", 0),
    "verify": ("remove it: the name is always verified; 'tls_ca = FILE' names an authority", 1),
}
_TOGETHER: Mapping[str, Mapping[str, str]] = {
    "check = tcp": {"check": "", "check-ssl": "tls=yes", "fall": "fall={}", "inter": "interval={}ms", "port": "port={}", "rise": "rise={}"},
    "eject =": {"max_fails": "failures={}", "fail_timeout": "within={0}s for={0}s"},
}  # fmt: skip
"""By the beginning of a key: the words after a server that are one value together. A duration may have a unit of its own."""
_KEYS_OF_BACKEND = frozenset(
    ["check", "connect_timeout", "idle_timeout", "proxy_protocol", "slow_start", "source", "tls"]
)
_AFTER_ENDPOINTS = {
    **each("accept-proxy proxy_protocol", "write 'accept_proxy_from = NETWORKS' as a key"),
    **each("crt ssl", f"TLS is ended by {ENDS_TLS_HERE}"),
    "udp": "for UDP write udp:PORT",
}

_REFUSES = "to turn clients away, write close, reset or reject"
OUTCOME_WORDS: Mapping[str, str] = {
    **each(f"{REDIRECTS} file_server root", "txmux sends nothing of HTTP; write the server that does, as HOST:PORT"),
    **each("abort blackhole block deny drop forbidden none null refuse respond return tarpit timeout", _REFUSES),
    **each("400 401 403 404 410 429 444 500 502 503 504", _REFUSES),
}  # fmt: skip
"""By the words of other programs for what becomes of a client other than to be connected: what to do."""

_SEVERAL = re.compile(r"\S+:[0-9]+\s*,")
_LIKE_PLACE = re.compile(r"(?:[0-9.*]*|\[[^\[\]]*\]):[0-9]+|[0-9]+|tcp6?:[0-9]+")
_V6_AND_PORT = re.compile("::[0-9]{2,4}")  # an IPv6 address, too, but not one in use
_SHORT = re.compile(r"(?:\[[^\[\]]*\]|[^:\[\]]*):[^:]*")
_ENDS_IN_TLS = " For a server with TLS, 'tls = yes' goes into a [backend]"


Sections = Mapping[str, Collection[str]]


def listening(messages: Texts, text: str) -> Texts:
    slip = "" if text.lower().startswith("udp:") else _slip(text, any_address="")
    host, _, port = text.partition(":")
    if answer := _habit(text) or slip or (text == "localhost" and _without_port(text, "127.0.0.1")):
        return [answer]
    if messages[0].startswith("'*' is not an IP address"):
        return [f"{messages[0]}; did you mean ':{port}'?"]
    if (kinds := _listed_kinds(messages)) and port.isdecimal() and nearest(host, kinds) is None:
        every = f"127.0.0.1:{port}, or :{port} for every address"
        return [f"{host!r} is a name; a listener takes an IP address, such as {every}"]
    return instead_of_list(messages, [host], kinds)


def server_address(messages: Texts, text: str) -> Texts:
    if slip := _slip(text, any_address="127.0.0.1"):
        return [slip]
    if messages[0].startswith(f"{text!r} has no port"):
        return [_without_port(text, text)]
    return instead_of_list(messages, [text.partition(":")[0].lower()], _listed_kinds(messages))


def _listed_kinds(messages: Texts) -> Texts:
    """Return the kinds of endpoint that a message lists, if it does."""
    there_are = re.fullmatch(r"there is no endpoint type .* \(there are (.*)\)", messages[0])
    return there_are[1].split(", ") if there_are else ()


def server(messages: Texts, text: str, words: Texts, read: Callable[[Texts], object]) -> Texts:
    if _SEVERAL.match(text):
        return ["takes one server a line; write them without commas"]
    both = text.split()
    if len(both) == 2 and both[1].isdecimal() and ":" not in both[0]:
        return [f"{text!r} has no colon; write '{':'.join(both)}'"]
    if len(words) > 1 and NAME_OF_SERVER.fullmatch(words[0]) and _SHORT.fullmatch(words[1]):
        advice = "remove it" if _problems_of(read, words[1:2]) else f"write {words[1]!r}"
        name = f"{words[0]!r}: a server has no name here; {advice}"
        return [name, *_problems_of(read, words[1:])]
    return messages


def _problems_of(read: Callable[[Texts], object], words: Texts) -> Texts:
    try:
        read(words)
    except InvalidValueError as error:
        return error.messages
    return ()


def after_server(messages: Texts, words: Texts, names: Texts) -> Texts:
    strays = [
        f"{word!r} is not expected after the server; "
        + (hint or f"write one server a line{did_you_mean(word.partition('=')[0], names)}")
        for word, hint in _strays(words)
        if word.partition("=")[0] not in names
    ]
    return strays or messages


def _strays(words: Texts) -> Iterator[tuple[str, str]]:
    """Yield words after a server that belong to another program, each with what to do, and all others without."""
    skip = 0
    before = ""
    together: dict[str, list[list[str]]] = {}
    for number, word in enumerate(words):
        if skip:
            skip -= 1
            continue
        name, equals, value = word.rstrip(";").partition("=")
        key = next((key for key, forms in _TOGETHER.items() if name in forms), "")
        if key and not (equals and name == "check"):
            form = _TOGETHER[key][name]
            skip = int("{" in form and not equals and number + 1 < len(words))
            value = words[number + 1] if skip else value
            form = form if value.isdecimal() else re.sub(r"(?<=\})m?s", "", form)
            together.setdefault(key, []).append(
                [*words[number : number + 1 + skip], form.format(value)]
            )
            continue
        hint, skip = _AFTER_SERVERS.get(name, ("", 0))
        skip = 0 if equals else skip
        if equals and name in _KEYS_OF_BACKEND:
            hint = f"write '{name} = {value}' as a key"
        if before in {"weight", "max_connections"} and word.isdecimal():
            hint = f"write {before}={word}"
        yield word, hint
        before = word
    for key, parts in together.items():
        given = " ".join(word for part in parts for word in part[:-1])
        line = " ".join(filter(None, (key, *(part[-1] for part in parts))))
        yield given, f"write '{line}' as a key"


def _habit(text: str) -> str:
    """Recognise what other programs have on the line where they listen."""
    first, *rest = text.split() or [""]
    parts = [part.strip() for part in text.split(",")]
    place, _, transport = first.lower().rpartition("/")
    answer = ""
    if len(parts) > 1 and all(map(_LIKE_PLACE.fullmatch, parts)):
        answer = "takes one endpoint a line; write them without commas"
    elif rest and _LIKE_PLACE.fullmatch(first):
        hints = (_AFTER_ENDPOINTS[word] for word in rest if word in _AFTER_ENDPOINTS)
        hint = next(hints, "write one endpoint a line, and nothing after it")
        answer = f"{' '.join(rest)!r} is not expected after {first!r}; {hint}"
    elif rest and first.startswith("unix:") and re.fullmatch("[a-z]+=.*", rest[0]):
        answer = f"{text!r} has blanks; write {':'.join((first, *rest))!r}"
    elif first.lower().startswith(("udp4:", "udp6:")):
        every = "0.0.0.0" if first[3] == "4" else "[::]"  # noqa: S104 - a hint
        answer = f"{text!r}: write 'udp:{every}:{first.rpartition(':')[2]}'"
    elif transport == "udp" and _LIKE_PLACE.fullmatch(place):
        answer = f"{text!r}: for UDP write 'udp:{place.removeprefix(':')}'"
    elif transport == "tcp" and _LIKE_PLACE.fullmatch(place):
        answer = f"{text!r}: txmux always listens on TCP; write {place!r}"
    return answer


def _slip(text: str, any_address: str) -> str:
    """Recognise what people write instead of an address and a port."""
    host, _, port = text.rpartition(":")
    meant, hint = "", ""
    url = without_scheme(text)
    if url is not None and not text.startswith("unix:"):
        at, _, port = url[0].rpartition(":")
        is_here = at == "*" or not (any_address or is_address(at.strip("[]")))
        meant = f"{any_address}:{port}" if is_here else url[0]
        hint = _ENDS_IN_TLS if url[1] and any_address else ""
    elif text.isdecimal() or (not any_address and re.fullmatch("[0-9]+-[0-9]+", text)):
        meant = f"{any_address}:{text}"
    elif any_address and text.startswith(":") and text[1:].isdecimal():
        meant = f"{any_address}{text}"
    elif _V6_AND_PORT.fullmatch(text):
        meant = f"[{'::1' if any_address else '::'}]:{text[2:]}"
    elif re.match("/(?!/)", text):
        meant = f"unix:{text}"
    elif _is_v6(host) and port.isdecimal():
        meant = f"[{host}]:{port}"
    elif _is_v6(bare := text[1:-1] if text[:1] + text[-1:] == "[]" else text):
        return _without_port(text, f"[{bare}]")
    elif is_address(text):
        return _without_port(text, text)
    return f"{text!r} is not an address and port; did you mean {meant!r}?{hint}" if meant else ""


def _without_port(text: str, host: str) -> str:
    if text.startswith("_"):
        return f"{text!r} is the name of an SRV record; write srv:{text}"
    host = "HOST" if host in {"tcp", "ssl", "unix", "tls"} else host
    return f"{text!r} has no port; write {host}:PORT"


def _is_v6(text: str) -> bool:
    return ":" in text and is_address(text)


def outcome(messages: Texts, text: str, sections: Sections, refusals: Texts) -> Texts:
    first, *rest = re.sub(r"[\[\]]|:(?= )", "", text).split() or [""]
    answer = ""
    if text in sections["backend"]:
        return messages
    if NAME.fullmatch(text) and (text in OUTCOME_WORDS or not text.replace(".", "").isdigit()):
        answer = _unknown_outcome(text, sections, refusals)
    elif _SEVERAL.match(text):
        answer = "takes one server; for several write a [backend] with one server a line, and its name here"
    elif rest and (first == "route" or first.casefold() in OUTCOME_WORDS):
        word = "redirect" if any("://" in word for word in rest) else first
        named = rest[0] if first == "route" else first
        answer = _unknown_outcome(named, sections, refusals, word)
    elif rest and first in {*refusals, "backend", "handover"}:
        right = {"backend": rest[0], "handover": f"handover:{rest[0]}"}.get(first, first)
        answer = f"{text!r} is not one word; write {right!r}"
    elif "," in text and all(NAME.fullmatch(part.strip()) for part in text.split(",")):
        answer = "takes one backend; put the servers of all of them into one [backend], and write its name here"
    return [answer] if answer else messages


def _unknown_outcome(text: str, sections: Sections, refusals: Texts, word: str = "") -> str:
    meant = OUTCOME_WORDS.get((word or text).casefold(), "")
    hint = did_you_mean(text, (*sections["backend"], *(() if meant else refusals)))
    is_host = "." in text and not text.rpartition(".")[2].isdecimal()
    if not (hint or meant) and (text == "localhost" or is_host):
        return f"{text!r} has no port; write {text}:PORT, or the name of a [backend]"
    advice = f"write the name of a backend, HOST:PORT, unix:/path, {joined(refusals)}"
    if meant:
        advice = meant
    elif text in sections["listen"]:
        advice = f"[listen {text}] is a listener; write a server such as 127.0.0.1:22"
    elif text in sections["route"]:
        advice = f"[route {text}] is a route; write what its 'backend' is"
    return with_advice(f"there is no [backend {text}]{hint}", advice)
