"""The URL of Consul, and its services as servers."""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from txmux.rules.model import ConsulService, Server
from txmux.rules.problems import InvalidValueError

CONSUL = "consul:"
"""How a server begins that stands for the instances of a service."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_EXAMPLE = "write for example 'http://127.0.0.1:8500'"
_SCHEMES = frozenset({"http", "https"})


def api_url(text: str) -> str:
    """Read the URL of Consul's HTTP API, without a path; ``HOST:PORT``; or ``unix:/path``."""
    if text.startswith("unix:"):
        path = "/" + text.removeprefix("unix:").lstrip("/")
        if path == "/" or not text.removeprefix("unix:").startswith("/"):
            raise InvalidValueError(
                f"{text!r} names no socket; write for example 'unix:/run/consul.sock'"
            )
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
    if parts.username is not None or parts.password is not None:
        raise InvalidValueError(
            "takes no user and password; write the token into a file, and add token=FILE after the URL"
        )
    if parts.path.rstrip("/") or parts.query or parts.fragment:
        raise InvalidValueError(
            f"{text!r} has a path; Consul's API has none before /v1, {_EXAMPLE}"
        )
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}"


def consul_server(text: str) -> Server:
    """Read ``consul:SERVICE``, the first word of a server that stands for a service."""
    name = text.removeprefix(CONSUL)
    service, colon, _ = name.partition(":")
    if colon and _NAME.fullmatch(service):
        raise InvalidValueError(
            f"{text!r}: Consul knows the port of each instance; write {CONSUL}{service}"
        )
    if not _NAME.fullmatch(name):
        raise InvalidValueError(
            f"{text!r} names no service; write for example 'consul:web', and where Consul is as 'consul' in [txmux]"
        )
    return Server(text, "consul", host=name, consul=ConsulService(name))


def with_options(server: Server, options: Mapping[str, object]) -> tuple[Server, dict[str, object]]:
    """Move the options that select instances into the server and its text; return it with the other options."""
    others = dict(options)
    tags, datacenter = others.pop("tag", ()), others.pop("dc", "")
    passing = bool(others.pop("passing", False))
    assert isinstance(tags, tuple)  # noqa: S101 - as its reader gives it
    service = ConsulService(server.host, tags, str(datacenter), passing)
    words = [
        server.text,
        *(f"tag={tag}" for tag in tags),
        *([f"dc={datacenter}"] if datacenter else []),
        *(["passing"] if passing else []),
    ]
    return Server(",".join(words), "consul", host=server.host, consul=service), others
