"""How the API of a cluster is reached: as a pod, or by a file of `kubectl`.

Source: the environment and the folder of pods' service accounts; the ``Config`` of client.authentication of kubectl, v1.
"""

import base64
import json
import os
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import attrs
from OpenSSL import SSL, crypto
from twisted.internet.ssl import Certificate, PrivateCertificate, trustRootFromCertificates

from txmux.classes import frozen
from txmux.errors import MuxError, cause_of, how_to_install
from txmux.net.tls.pem import read_authorities
from txmux.net.tls.verification import ClientTLS
from txmux.transport import bracketed
from txmux.wire.jsontext import MISSHAPEN

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


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
