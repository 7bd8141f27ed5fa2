import base64
import json
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from tests.support.certificates import make_authority
from tests.support.folders import make_folder
from txmux.errors import MuxError
from txmux.features.gateway.access import find_access


class KubeconfigTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = make_folder(self)
        self.file = self.folder / "config"

    def write(
        self, user: dict[str, Any], cluster: dict[str, Any] | None = None, **more: object
    ) -> Path:
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

    def test_token(self) -> None:
        found = find_access(None, str(self.write({"token": "secret"})), {})
        self.assertEqual(
            (found.url, found.namespace, found.token()), ("https://c.example", "edge", "secret")
        )

    def test_yaml_and_the_environment(self) -> None:
        text = yaml.safe_dump(json.loads(self.write({"token": "secret"}).read_text()))
        self.file.write_text(text)
        environment = {"KUBECONFIG": str(self.file), "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
        self.assertEqual(find_access(None, None, environment).token(), "secret")
        self.assertEqual(
            find_access("https://else.example/", None, environment).url, "https://else.example"
        )

    def test_token_of_a_file(self) -> None:
        """It is read for each request, since it changes; its path is beside the kubeconfig's."""
        found = find_access(None, str(self.write({"tokenFile": "token", "token": "old"})), {})
        for secret in ("one", "two"):
            (self.folder / "token").write_text(f"{secret}\n")
            self.assertEqual(found.token(), secret)

    def test_certificates(self) -> None:
        """In the config itself, or in files beside it."""
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
        for user, cluster, more, said in (
            ({"exec": {}}, {}, {}, "exec of a user is not supported"),
            ({"username": "u"}, {}, {}, "username of a user is not supported"),
            ({"client-key": "gone"}, {}, {}, "client-key: "),
            ({"client-key-data": "no"}, {}, {}, "it is no kubeconfig that can be read"),
            ({"client-certificate-data": "AAAA"}, {}, {}, "it is no kubeconfig that can be read"),
            ({}, {"certificate-authority": "gone"}, {}, "certificate-authority: "),
            ({}, {}, {"current-context": "gone"}, "it is no kubeconfig that can be read"),
            ({}, {}, {"users": []}, "it is no kubeconfig that can be read"),
        ):
            path = str(self.write(user, cluster, **more))
            problem = self.assertRaises(MuxError, find_access, None, path, {})
            self.assertIn(f"{path}: {said}", str(problem))
        for text in ("[", "7", "{:", ""):
            self.file.write_text(text)
            self.assertRaises(MuxError, find_access, None, str(self.file), {})
        gone = self.folder / "gone"
        problem = self.assertRaises(MuxError, find_access, None, str(gone), {})
        self.assertEqual(str(problem), f"{gone}: cannot be read: no such file or directory")

    def test_wrong_urls(self) -> None:
        for url in ("x", "ftp://a.example", "https://", "https://a.example:x", "http://[::1"):
            problem = self.assertRaises(MuxError, find_access, url, None, {})
            self.assertIn(f"'{url.rstrip('/')}' is not the URL of an API", str(problem))
        problem = self.assertRaises(
            MuxError, find_access, None, self.write({}, {"server": "x"}), {}
        )
        self.assertIn("'x' is not the URL of an API", str(problem))

    def test_none(self) -> None:
        self.assertEqual(find_access("https://a.example/", None, {}).url, "https://a.example")
        problem = self.assertRaises(MuxError, find_access, None, None, {})
        self.assertIn("--kubeconfig FILE or --api URL", str(problem))
        environment = {"KUBERNETES_SERVICE_HOST": "fd00::1"}
        problem = self.assertRaises(MuxError, find_access, None, None, environment)
        self.assertIn("this pod has no token", str(problem))
