"""Where Consul is, and its services as servers."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from txmux.classes import frozen
from txmux.rules.model import Server, Settings
from txmux.rules.problems import InvalidValueError
from txmux.rules.reading.context import RulesReading
from txmux.rules.reading.values import of_form, read_options, split_words
from txmux.transport import bracketed

CONSUL = "consul"
"""The key in [txmux]; with a colon, how a server begins that stands for the instances of a service."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_EXAMPLE = "write for example 'http://127.0.0.1:8500'"
_SCHEMES = frozenset({"http", "https"})


@frozen
class ConsulService:
    """A query for instances of a service in Consul.

    Attributes:
        tags: They have all of these.
        datacenter: Empty is that of the agent.
        passing: Whether those are out that have a warning.
    """

    name: str
    tags: tuple[str, ...] = ()
    datacenter: str = ""
    passing: bool = False


@frozen
class ConsulAPI:
    """Where Consul answers queries.

    Attributes:
        url: Of its HTTP API: ``http:``, ``https:`` or ``unix:``.
        token: The file with its token; ``None`` is without.
    """

    url: str = "http://127.0.0.1:8500"
    token: Path | None = None


def consul_api(reading: RulesReading, text: str) -> ConsulAPI:
    """Read the URL of Consul's HTTP API, and ``token=FILE``."""
    url, *words = split_words(text) or [""]
    options = read_options(words, {"token": reading.secret}, of=CONSUL)
    return ConsulAPI(api_url(url), options.get("token"))


def api_url(text: str) -> str:
    """Read the URL of Consul's HTTP API, without a path; ``HOST:PORT``; or ``unix:/path``."""
    if text.startswith("unix:"):
        path = "/" + text.removeprefix("unix:").lstrip("/")
        if path == "/" or not text.removeprefix("unix:").startswith("/"):
            message = f"{text!r} names no socket; write for example 'unix:/run/consul.sock'"
            raise InvalidValueError(message)
        return f"unix:{path}"
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise InvalidValueError(f"{text!r} is not a URL; {_EXAMPLE}") from None
    host = parts.hostname
    if parts.scheme not in _SCHEMES or not host or not parts.netloc.isascii() or " " in text:
        raise InvalidValueError(f"{text!r} is not a URL of Consul's API; {_EXAMPLE}")
    if parts.username is not None:
        message = "takes no user and password; write the token into a file, and add token=FILE after the URL"
        raise InvalidValueError(message)
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        message = f"{text!r} has a path; Consul's API has none before /v1, {_EXAMPLE}"
        raise InvalidValueError(message)
    return f"{parts.scheme}://{bracketed(host)}{'' if port is None else f':{port}'}"


def _tags(text: str) -> tuple[str, ...]:
    tags = tuple(tag.strip() for tag in text.split(","))
    if not all(tags) or any(not tag.isprintable() or " " in tag for tag in tags):
        raise InvalidValueError(f"{text!r} is not a list of tags; write for example tag=v1,blue")
    return tags


OPTIONS: Mapping[str, Callable[[str], Any]] = {
    "tag": _tags,
    "dc": of_form(r"[A-Za-z0-9_-]+", "is not the name of a datacenter of Consul"),
}


def consul_server(
    text: str, settings: Settings, *, tag: tuple[str, ...] = (), dc: str = "", passing: bool = False
) -> Server:
    """Read ``consul:SERVICE``, the first word of a server that stands for a service, with the options that select instances."""
    name = text.partition(":")[2]
    service, colon, _ = name.partition(":")
    if colon and _NAME.fullmatch(service):
        message = f"{text!r}: Consul knows the port of each instance; write {CONSUL}:{service}"
        raise InvalidValueError(message)
    if not _NAME.fullmatch(name):
        message = f"{text!r} names no service; write for example 'consul:web', and where Consul is as 'consul' in [txmux]"
        raise InvalidValueError(message)
    words = [text, *(f"tag={one}" for one in tag), *([f"dc={dc}"] if dc else [])]
    query = ConsulService(name, tag, dc, passing), settings.more.get(CONSUL, ConsulAPI())
    words += ["passing"] if passing else []
    return Server(",".join(words), CONSUL, host=name, query=query)
