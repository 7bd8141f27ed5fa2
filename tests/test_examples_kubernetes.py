"""The manifests for Kubernetes are right by its schemas, and agree with each other and with the rules in them."""

import itertools
from importlib import import_module
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.cli.support import CommandTestCase
from txmux.rules.reading.parser import load

kubernetes_validate: Any = import_module("kubernetes_validate")
yaml: Any = import_module("yaml")

_ROOT = Path(__file__).parent.parent
_FOLDER = _ROOT / "examples" / "kubernetes"
_VERSIONS = ("1.30", "1.34")


def manifests(name: str = "*") -> list[dict[str, Any]]:
    texts = [file.read_text() for file in sorted(_FOLDER.glob(f"{name}.yaml"))]
    return list(itertools.chain.from_iterable(map(yaml.safe_load_all, texts)))


class FilesTests(SynchronousTestCase):
    def test_valid(self) -> None:
        # The schemas have no kinds of other groups.
        own = {"Kustomization", "GatewayClass", "Gateway", "TLSRoute", "TCPRoute"}
        found = manifests() + [one for one in manifests("gateway/*") if one["kind"] not in own]
        self.assertGreater(len(found), 15)
        for manifest, version in itertools.product(found, _VERSIONS):
            kubernetes_validate.validate(manifest, version, strict=True)
        # The validator finds wrong types and misspelt fields.
        for field, value in (("replicas", "three"), ("replica", 3)):
            (deployment, *_) = manifests("txmux")
            deployment["spec"][field] = value
            with self.assertRaises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate(deployment, _VERSIONS[0], strict=True)

    def test_shown_files(self) -> None:
        pages = _ROOT / "docs" / "how-to"
        for page, files in (
            ("kubernetes.md", _FOLDER.glob("*")),
            ("behind-a-balancer.md", (_FOLDER.parent / "balancer").glob("*")),
        ):
            text = (pages / page).read_text()
            for file in filter(Path.is_file, files):
                included = f"```{{literalinclude}} ../../{file.relative_to(_ROOT)}\n" in text
                copied = f"\n{file.read_text()}```\n" in text
                self.assertTrue(included or copied, f"include {file} in {page}")


class AgreementTests(CommandTestCase):
    def setUp(self) -> None:
        super().setUp()
        (rules,) = manifests("rules")
        self.config: dict[str, Any] = rules
        self.deployment, *self.others = manifests("txmux")
        self.pod: dict[str, Any] = self.deployment["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.ports: dict[str, int] = {
            port["name"]: port["containerPort"] for port in self.container["ports"]
        }

    def test_rules(self) -> None:
        file = self.write("rules.ini", self.config["data"]["rules.ini"])
        rules = load(file)
        self.be_user(10001)
        told = f"{file}: OK, 1 listener, 2 routes, 2 backends\n"
        self.assertEqual(self.run_main("check", file), (0, told, ""))
        (listener,) = rules.listeners
        self.assertEqual(listener.endpoints, (f":{self.ports['public']}",))
        self.assertEqual(rules.settings.metrics, f":{self.ports['metrics']}")
        for probe in ("readinessProbe", "livenessProbe"):
            self.assertEqual(self.container[probe]["httpGet"]["port"], "metrics")
        _, policy = self.others
        named = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        self.assertEqual(named, ["public", "metrics"])
        for service in manifests("service*"):
            (port,) = service["spec"]["ports"]
            self.assertEqual(port["targetPort"], "public")
            self.assertEqual(service["spec"]["externalTrafficPolicy"], "Local")
        # The pod is given longer than txmux takes to stop; `grace` is longer than it takes to be found unready.
        longest = self.pod["terminationGracePeriodSeconds"]
        self.assertLess(rules.settings.grace + rules.settings.drain_timeout, longest)
        probe = self.container["readinessProbe"]
        found = probe["periodSeconds"] * probe["failureThreshold"]
        self.assertGreater(rules.settings.grace, 2 * found)
        # The rules are watched.
        self.assertGreater(rules.settings.watch_rules, 0)
        (volume,) = [one for one in self.pod["volumes"] if one["name"] == "rules"]
        self.assertEqual(volume["configMap"]["name"], self.config["metadata"]["name"])
        (mount,) = [one for one in self.container["volumeMounts"] if one["name"] == "rules"]
        self.assertNotIn("subPath", mount)
        image = (_FOLDER.parent.parent / "Containerfile").read_text()
        self.assertIn(f'CMD ["{mount["mountPath"]}/rules.ini"]', image)
        self.assertIn(f"USER {self.pod['securityContext']['runAsUser']}:", image)
        # Selectors match the labels.
        labels = self.deployment["spec"]["template"]["metadata"]["labels"]
        budget, _ = self.others
        selected = [
            self.deployment["spec"]["selector"]["matchLabels"],
            budget["spec"]["selector"]["matchLabels"],
            policy["spec"]["podSelector"]["matchLabels"],
            *(one["labelSelector"]["matchLabels"] for one in self.pod["topologySpreadConstraints"]),
            *(service["spec"]["selector"] for service in manifests("service*")),
        ]
        self.assertEqual(selected, [labels] * len(selected))

    def test_pods_of_the_provider_are_the_same_but_for_it(self) -> None:
        deployment, budget = manifests("gateway/txmux")
        pod = deployment["spec"]["template"]["spec"]
        service, provider = pod["containers"]
        self.assertEqual({**service, "image": ""}, {**self.container, "image": ""})
        self.assertEqual(budget["spec"], self.others[0]["spec"])
        self.assertNotIn("token", [one["name"] for one in service["volumeMounts"]])
        self.assertFalse(pod["automountServiceAccountToken"])
        for key in ("strategy", "selector", "replicas"):
            self.assertEqual(deployment["spec"][key], self.deployment["spec"][key])
        (config,) = manifests("gateway/rules")
        (pattern,) = load(self.write("rules.ini", config["data"]["rules.ini"])).files.included
        written = pattern.replace("*", "gateway")
        self.assertIn(f"--write={written}", provider["command"])
        self.assertIn(written, provider["readinessProbe"]["exec"]["command"])
        (port,) = manifests("gateway/service")[0]["spec"]["ports"]
        self.assertIn(f"--port={port['port']}={port['targetPort']}", provider["command"])
        self.assertIn(port["targetPort"], self.ports.values())
