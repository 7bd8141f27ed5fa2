"""The API of Kubernetes: how it is reached, as a pod or by a file of `kubectl`; lists by pages, watches, and changes.

Source: Kubernetes API concepts: "Efficient detection of changes", "Retrieving large results sets in chunks"; RFC 7386; the environment and the
folder of pods' service accounts; the ``Config`` of client.authentication of kubectl, v1.
"""

import base64
import json
import os
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import attrs
from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates

from txmux.classes import frozen
from txmux.errors import MuxError, cause_of, how_to_install, printable
from txmux.features.gateway.cluster import GROUP
from txmux.net.http import RequestFailedError, ResponseTimeoutError, request
from txmux.net.tls.pem import read_authorities
from txmux.net.tls.verification import ClientTLS
from txmux.transport import bracketed
from txmux.wire.jsontext import MISSHAPEN, JsonLines, parse_json

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


FORBIDDEN, ABSENT, CONFLICT, GONE = 403, 404, 409, 410
_PATIENCE = 10.0  # seconds for an answer
_MOST = 1 << 26  # bytes of an answer
_PAGE = 500  # objects
_MOST_OBJECTS = 200_000  # of one kind
_WATCH = 60  # seconds: one that is cut unnoticed is found then
_LONGEST_EVENT = 1 << 22  # etcd takes objects of 1.5 MiB


@frozen
class Access:
    """Where the API is, and who asks.

    Attributes:
        url: Without a path.
        namespace: That of the provider.
        token: Returns the secret of a request; empty without one. A pod's is another one every hour.
        tls: Makes the options of TLS for a host.
    """

    url: str
    namespace: str = "default"
    token: Callable[[], str] = lambda: ""
    tls: Callable[[str], Any] = ClientTLS


def find_access(
    url: str | None, file: str | None, environment: Mapping[str, str] = os.environ
) -> Access:
    """Return how to reach the API: by a kubeconfig file, else as a pod, else at a URL alone.

    Args:
        url: In the place of the one that is found.
        file: The kubeconfig; without it, that of ``KUBECONFIG``.
        environment: Variables, of which a pod has ``KUBERNETES_SERVICE_HOST`` and ``KUBERNETES_SERVICE_PORT``.

    Raises:
        MuxError: There is none, or its files cannot be used.
    """
    file = file or environment.get("KUBECONFIG")
    if file:
        access = _of_file(Path(file))
    elif host := environment.get("KUBERNETES_SERVICE_HOST"):
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        access = _of_pod(f"https://{bracketed(host)}:{port}")
    elif url:
        access = Access(url)
    else:
        message = "this is no pod of a cluster; name its API by --kubeconfig FILE or --api URL"
        raise MuxError(message)
    url = (url or access.url).rstrip("/")
    if not _is_url(url):
        raise MuxError(f"{url!r} is not the URL of an API; write for example https://10.0.0.1:6443")
    return attrs.evolve(access, url=url)


def _is_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _of_pod(url: str) -> Access:
    try:
        namespace = (_ACCOUNT / "namespace").read_text().strip()
        tls = _tls((_ACCOUNT / "ca.crt").read_bytes(), None)
        (_ACCOUNT / "token").read_text()
    except OSError as problem:
        why = "this pod has no token of a service account; see automountServiceAccountToken"
        raise MuxError(f"{why}: {problem}") from None
    return Access(url, namespace, lambda: (_ACCOUNT / "token").read_text().strip(), tls)


def _of_file(path: Path) -> Access:
    try:
        text = path.read_text()
    except (OSError, UnicodeError) as problem:
        raise MuxError(f"{path}: cannot be read: {cause_of(problem)}") from None
    try:
        config = _read(text)
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        for key in ("exec", "auth-provider", "username"):
            if key in user:
                why = f"{key} of a user is not supported; use a token or a client certificate"
                raise MuxError(f"{path}: {why}")
        identity = [_data(path, user, "client-certificate"), _data(path, user, "client-key")]
        tls = _tls(
            _data(path, cluster, "certificate-authority"), b"\n".join(filter(None, identity))
        )
        token_file = user.get("tokenFile")
        token = partial(
            _token, path.parent / token_file if token_file else None, str(user.get("token") or "")
        )
        return Access(
            str(cluster["server"]), str(context.get("namespace") or "default"), token, tls
        )
    except (*MISSHAPEN, SSL.Error, crypto.Error) as problem:
        raise MuxError(f"{path}: it is no kubeconfig that can be read: {problem!r}") from None


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        yaml = import_module("yaml")
    except ModuleNotFoundError:
        message = f"a kubeconfig in YAML needs PyYAML; install it: {how_to_install('gateway')}"
        raise MuxError(message) from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as problem:
        raise ValueError(str(problem)) from None


def _named(config: Any, kind: str, name: str) -> Any:
    return next((entry for entry in config[kind] if entry["name"] == name), None)


def _data(path: Path, thing: Any, key: str) -> bytes | None:
    """Return what stands in a file or in the config itself."""
    if data := thing.get(f"{key}-data"):
        return bytes(base64.b64decode(str(data), validate=True))
    if file := thing.get(key):
        try:
            return Path(path.parent, str(file)).read_bytes()
        except OSError as problem:
            raise MuxError(f"{path}: {key}: {problem}") from None
    return None


def _token(file: Path | None, token: str) -> str:
    return file.read_text().strip() if file else token


def _tls(authority: bytes | None, identity: bytes | None) -> Callable[[str], Any]:
    options: dict[str, Any] = {}
    if authority:
        roots = read_authorities(Path("certificate-authority"), "kubeconfig", lambda _: authority)
        options["trustRoot"] = trustRootFromCertificates(map(Certificate, roots))
    if identity:
        options["clientCertificate"] = PrivateCertificate.loadPEM(identity)
    return lru_cache(1)(partial(ClientTLS, **options))


class NoServerError(MuxError):
    """The API gives no good answer; `status` is that of HTTP, or 0."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@frozen
class Kind:
    """A kind of objects, where it is served, and by which versions, the preferred one first.

    `status_counts` says whether rules or status of others depend on its status, and `may_lack` with which status of HTTP a provider
    continues without it, and no client is served by it. Without the others, nothing is known. `only` is the ``fieldSelector`` of those
    that are of use.
    """

    name: str
    plural: str
    group: str = GROUP
    versions: tuple[str, ...] = ("v1",)
    status_counts: bool = False
    may_lack: Collection[int] = ()
    only: str = ""

    def path(self, version: str, namespace: str = "", name: str = "") -> str:
        parts = ["apis", self.group, version] if self.group else ["api", version]
        parts += ["namespaces", namespace] * bool(namespace)
        return "/" + "/".join([*parts, self.plural, *[name] * bool(name)])


class KubeApi:
    """Asks the API, each question on a connection of its own."""

    def __init__(self, reactor: Any, access: Access) -> None:
        self._reactor = reactor
        self.access = access

    async def get(self, path: str, **query: object) -> Any:
        return self._value(await self._request("GET", path, query))

    async def send(self, method: str, path: str, body: object) -> Any:
        """Change something: ``PATCH`` merges (RFC 7386); returns what it is then."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        headers = {"Content-Type": kind}
        data = json.dumps(body).encode()
        return self._value(await self._request(method, path, {}, headers, body=data))

    async def list(self, path: str, **query: object) -> tuple[list[Any], str]:
        """Return all objects, and the version of the list, from which to watch."""
        items: list[Any] = []
        more = ""
        while True:
            answer = await self.get(
                path, limit=_PAGE, **query, **({"continue": more} if more else {})
            )
            try:
                items += answer["items"]
                metadata = answer["metadata"]
                more, version = metadata.get("continue") or "", metadata["resourceVersion"]
            except MISSHAPEN:
                raise self._no_server("what answers is not Kubernetes: no list") from None
            if len(items) > _MOST_OBJECTS:
                raise self._no_server(f"there are more than {_MOST_OBJECTS} at {path}")
            if not more:
                return items, version

    async def watch(
        self, path: str, version: str, take: Callable[[Any], object], **query: object
    ) -> None:
        """Report events from a version on, until the stream ends, which it does after a minute."""
        query |= {"watch": 1, "allowWatchBookmarks": "true"}
        query |= {"resourceVersion": version, "timeoutSeconds": _WATCH}
        events = JsonLines(take, _LONGEST_EVENT, self._no_server)
        limits: dict[str, Any] = {"body_seconds": _WATCH + _PATIENCE, "most": 1 << 40}
        answer = await self._request("GET", path, query, take=events.feed, **limits)
        if answer.status != 200:
            self._value(answer)

    async def _request(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        headers: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Any:
        url = f"{self.access.url}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            token = self.access.token()
        except (OSError, UnicodeError) as problem:
            raise self._no_server(f"the token cannot be read: {problem}") from None
        sent = {"Accept": "application/json", **(headers or {})}
        if token:
            sent["Authorization"] = f"Bearer {token}"
        options = {"most": _MOST, "tls": self.access.tls, "seconds": _PATIENCE, **options}
        try:
            return await request(self._reactor, method, url, sent, **options)
        except ResponseTimeoutError:
            raise self._no_server(f"no answer in {_PATIENCE:g} s") from None
        except RequestFailedError as problem:
            raise self._no_server(str(problem)) from None

    def _value(self, answer: Any) -> Any:
        try:
            value = parse_json(answer.body)
        except ValueError:
            value = None
        if 200 <= answer.status < 300 and value is not None:
            return value
        message = value.get("message") if isinstance(value, dict) else ""
        why = printable(str(message or answer.body[:200].decode("utf-8", "replace")).strip(), 200)
        raise self._no_server(f"status {answer.status} {why}", answer.status)

    def _no_server(self, why: str, status: int = 0) -> NoServerError:
        return NoServerError(f"the API at {self.access.url}: {why}", status)
