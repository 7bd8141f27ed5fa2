"""A real API server of Kubernetes, with etcd, and `kubectl`; `script/kube-apiserver` builds one."""

import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.programs import require_program
from tests.support.kit import Child, eventually, free_port, make_certificate, output_of, run, write
from txmux.features.gateway.provider import KINDS

_HOST = "localhost"
_ADMIN = "admin"
_FLAGS = (
    # No address of this machine is one that an API server would advertise.
    *("--endpoint-reconciler-type=none", "--advertise-address=192.0.2.1", "--bind-address=127.0.0.1"),
    *("--service-account-issuer=https://kubernetes.default.svc", "--service-cluster-ip-range=10.96.0.0/16"),
    "--authorization-mode=RBAC",
)  # fmt: skip


class KubernetesApi:
    """Both servers, until `end`; the API server runs from `start` to `stop`, and `admin` is the kubeconfig of one who may do all."""

    def __init__(self, folder: Path) -> None:
        for name in ("etcd", "kube-apiserver", "kubectl"):
            require_program(name)
        self._folder = folder
        self._port, self._etcd_port = free_port(), free_port()
        peer = f"http://127.0.0.1:{free_port()}"
        self._etcd = Child(
            *("etcd", "--data-dir", folder / "etcd", "--log-level", "error", "--unsafe-no-fsync"),
            *("--listen-client-urls", self._etcd_url, "--advertise-client-urls", self._etcd_url),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
        )  # fmt: skip
        self._certificate = make_certificate(folder, _HOST)
        write(folder / "tokens", f'{_ADMIN},admin,1,"system:masters"\n')
        self.admin = self.kubeconfig(_ADMIN, "default")
        # An API server reads no other form of keys.
        self._key = folder / "accounts.key"
        curve = ("-name", "prime256v1", "-genkey", "-noout")
        output_of("openssl", "ecparam", *curve, "-out", self._key)
        self._server: Child | None = None

    @property
    def _etcd_url(self) -> str:
        return f"http://127.0.0.1:{self._etcd_port}"

    def start(self) -> None:
        self._server = Child(
            *("kube-apiserver", "--etcd-servers", self._etcd_url, "--secure-port", str(self._port), *_FLAGS),
            *("--tls-cert-file", self._certificate.chain, "--tls-private-key-file", self._certificate.key),
            *("--service-account-key-file", self._key, "--service-account-signing-key-file", self._key),
            *("--token-auth-file", self._folder / "tokens", "--cert-dir", self._folder),
        )  # fmt: skip
        ready = ("kubectl", "--kubeconfig", self.admin, "get", "--raw", "/readyz")
        eventually(lambda: run(*ready).stdout == b"ok", "the API server is ready")

    def stop(self) -> None:
        """End the API server at once: asked to, it would wait a minute for those who watch."""
        if self._server is not None:
            self._server.process.kill()
            self._server.end()
            self._server = None

    def end(self) -> None:
        self.stop()
        self._etcd.end()

    def forget_history(self) -> None:
        """Have etcd forget all but the newest state, so that no watch can go on from an older one (410)."""
        header = self._ask("kv/range", {"key": "AA=="})["header"]
        self._ask("kv/compaction", {"revision": header["revision"], "physical": True})

    def _ask(self, path: str, question: dict[str, Any]) -> Any:
        url = f"{self._etcd_url}/v3/{path}"
        with urllib.request.urlopen(url, json.dumps(question).encode()) as answer:
            return json.load(answer)

    def kubeconfig(self, token: str, namespace: str) -> Path:
        """Write how the holder of a token reaches the API, in this namespace."""
        cluster = {"server": f"https://{_HOST}:{self._port}"}
        cluster["certificate-authority"] = str(self._certificate.chain)
        context = {"cluster": "c", "user": "u", "namespace": namespace}
        config: dict[str, Any] = {"apiVersion": "v1", "kind": "Config", "current-context": "x"}
        config["clusters"] = [{"name": "c", "cluster": cluster}]
        config["users"] = [{"name": "u", "user": {"token": token}}]
        config["contexts"] = [{"name": "x", "context": context}]
        return write(self._folder / f"{namespace}.kubeconfig", yaml.safe_dump(config))

    def ask(self, method: str, path: str, content: Any = None) -> Any:
        """Ask as one who may do all; a PATCH is a server-side apply, and what is not there is ``None``."""
        kind = "apply-patch+yaml" if method == "PATCH" else "json"
        query = "?fieldManager=tests&force=true" if method == "PATCH" else ""
        url = f"https://{_HOST}:{self._port}{path}{query}"
        body = None if content is None else json.dumps(content).encode()
        head = {"Authorization": f"Bearer {_ADMIN}", "Content-Type": f"application/{kind}"}
        request = urllib.request.Request(url, body, head, method=method)
        trust = ssl.create_default_context(cafile=str(self._certificate.chain))
        try:
            with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            if error.code == 404 and method != "PATCH":
                return None
            raise AssertionError(f"{method} {path}: {error.code}: {said}") from None

    def kubectl(self, *arguments: str | Path) -> str:
        return output_of("kubectl", "--kubeconfig", self.admin, *arguments).decode()

    def apply(self, text: str) -> None:
        self.kubectl("apply", "-f", write(self._folder / "applied.yaml", text))

    def define_gateways(self) -> None:
        """Define the kinds of Gateway API: as the folder ``TXMUX_GATEWAY_CRDS`` does, else without schemas."""
        folder = os.environ.get("TXMUX_GATEWAY_CRDS")
        if folder:
            self.kubectl("apply", "--server-side", "-f", folder)
        else:
            self.apply("\n---\n".join(_definitions()))
        self.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


_DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: {its.plural}.{its.group}
  annotations: {{api-approved.kubernetes.io: "unapproved, of a test"}}
spec:
  group: {its.group}
  scope: {scope}
  names: {{kind: {its.name}, plural: {its.plural}, singular: {singular}, listKind: {its.name}List}}
  versions:
  - schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}
    subresources: {{status: {{}}}}
    name: v1
    served: true
    storage: true
"""


def _definitions() -> Iterator[str]:
    for its in KINDS.values():
        if its.group == "gateway.networking.k8s.io":
            scope = "Cluster" if its.name == "GatewayClass" else "Namespaced"
            yield _DEFINITION.format(its=its, scope=scope, singular=its.name.lower())


def start_provider(
    api: KubernetesApi, folder: Path, *options: str, settings: str = ""
) -> tuple[Child, Child]:
    """Start txmux, and a provider with the rights of the manifests."""
    own = f"include = providers/*.ini\nadmin = unix:{folder}/txmux.sock\naccess_log = off\n"
    rules = write(folder / "rules.ini", f"[txmux]\n{own}{settings}")
    token = api.kubectl("create", "token", "txmux", "--namespace=txmux").strip()
    files = (f"--rules={rules}", f"--write={folder}/providers/gateway.ini")
    access = f"--kubeconfig={api.kubeconfig(token, 'txmux')}"
    service = Child("txmux", "run", rules)
    return service, Child("txmux", "provider", "gateway", *files, access, *options)
