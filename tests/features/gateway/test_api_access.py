import base64
import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from tests.support.kit import make_authority, make_folder
from txmux.errors import MuxError
from txmux.features.gateway.api import find_access


class KubeconfigTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.file = self.folder / "config"

    def write(self, user: Any, cluster: Any = None, **more: object) -> Path:
        config = {
            "current-context": "x",
            "contexts": [
                {"name": "other", "context": {"cluster": "other", "user": "other"}},
                {"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "edge"}},
            ],
            "clusters": [
                {"name": "other", "cluster": {"server": "https://other.example"}},
                {"name": "c", "cluster": {"server": "https://c.example/", **(cluster or {})}},
            ],
            "users": [{"name": "other", "user": {"token": "x"}}, {"name": "u", "user": user}],
            **more,
        }
        self.file.write_text(json.dumps(config))
        return self.file

    def test_secrets_of_a_kubeconfig(self) -> None:
        """Of JSON or YAML; the environment may name the file. One in a file is read for each request, since it changes; its path is beside the kubeconfig's."""
        found = find_access(None, str(self.write({"token": "secret"})), {})
        told = (found.url, found.namespace, found.token())
        self.assertEqual(told, ("https://c.example", "edge", "secret"))
        self.file.write_text(yaml.safe_dump(json.loads(self.file.read_text())))
        environment = {"KUBECONFIG": str(self.file), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        self.assertEqual(find_access(None, None, environment).token(), "secret")
        url = find_access("https://else.example/", None, environment).url
        self.assertEqual(url, "https://else.example")
        found = find_access(None, str(self.write({"tokenFile": "token", "token": "old"})), {})
        for secret in ("one", "two"):
            (self.folder / "token").write_text(f"{secret}\n")
            self.assertEqual(found.token(), secret)
        # In the config itself, or in files beside it.
        made = make_authority("u.example", "u.example")
        chain = self.folder / "u.pem"
        made.write(chain)
        (self.folder / "u.key").write_bytes(made.key_pem())
        of_files = {"client-certificate": "u.pem", "client-key": "u.key"}
        inside = {
            "client-certificate-data": base64.b64encode(chain.read_bytes()).decode(),
            "client-key-data": base64.b64encode(made.key_pem()).decode(),
        }
        for user in (of_files, inside):
            found = find_access(None, str(self.write(user, {"certificate-authority": "u.pem"})), {})
            self.assertEqual(found.token(), "")
            self.assertIsNotNone(found.tls("c.example"))

    def test_unusable(self) -> None:
        none = "it is no kubeconfig that can be read"
        for user, cluster, more, said in (
            ({"exec": {}}, {}, {}, "exec of a user is not supported"),
            ({"username": "u"}, {}, {}, "username of a user is not supported"),
            ({"client-key": "gone"}, {}, {}, "client-key: "), ({"client-key-data": "no"}, {}, {}, none),
            ({"client-certificate-data": "AAAA"}, {}, {}, none), ({}, {}, {"users": []}, none),
            ({}, {"certificate-authority": "gone"}, {}, "certificate-authority: "),
            ({}, {}, {"current-context": "gone"}, none),
        ):  # fmt: skip
            path = str(self.write(user, cluster, **more))
            self.assertIn(f"{path}: {said}", self.refused(None, path))
        for text in ("[", "7", "{:", ""):
            self.file.write_text(text)
            self.refused(None, str(self.file))
        gone = str(self.folder / "gone")
        why = f"{gone}: cannot be read: no such file or directory"
        self.assertEqual(self.refused(None, gone), why)
        # Wrong ones, and none.
        self.assertEqual(find_access("https://a.example/", None, {}).url, "https://a.example")
        for url in ("x", "ftp://a.example", "https://", "https://a.example:x", "http://[::1"):
            self.assertIn(f"'{url.rstrip('/')}' is not the URL of an API", self.refused(url, None))
        path = str(self.write({}, {"server": "x"}))
        self.assertIn("'x' is not the URL of an API", self.refused(None, path))
        self.assertIn("--kubeconfig FILE or --api URL", self.refused(None, None))
        why = self.refused(None, None, KUBERNETES_SERVICE_HOST="fd00::1")
        self.assertIn("this pod has no token", why)

    def refused(self, *words: str | None, **environment: str) -> str:
        api, kubeconfig = words
        return str(self.assertRaises(MuxError, find_access, api, kubeconfig, environment))
