"""The description of the API, compared with the API; `tests.test_docs` compares it with the documentation."""

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txmux.admin.api.openapi import description
from txmux.admin.site import ADMIN

FOR_PEOPLE = ("/", "/static/{name}", "/login", "/enter", "/metrics")


class DescriptionTest(SynchronousTestCase):
    def test_every_resource_for_programs_and_no_other(self) -> None:
        described = {
            (method.upper(), path)
            for path, methods in description(ADMIN)["paths"].items()
            for method in methods
        }
        there_is = {(one.method, one.path) for one in ADMIN if one.path not in FOR_PEOPLE}
        self.assertEqual(described, there_is)

    def test_all_references_resolve_and_all_schemas_are_used(self) -> None:
        whole = description(ADMIN)
        named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(whole)))
        self.assertEqual(named, set(whole["components"]["schemas"]))

    def test_answers_that_may_lack_a_worker(self) -> None:
        """Each that a worker has a part in says by a header which part is missing."""
        lacking = {
            path
            for path, methods in description(ADMIN)["paths"].items()
            for operation in methods.values()
            if "Txmux-Missing" in operation["responses"]["200"].get("headers", {})
        }
        lists = (
            "status",
            "connections",
            "connections/{id}",
            "clients",
            "certificates",
            "routes",
            "backends",
        )
        self.assertEqual(lacking, {f"/api/{name}" for name in lists})

    def test_variable_parts_of_paths_are_described(self) -> None:
        for path, methods in description(ADMIN)["paths"].items():
            for operation in methods.values():
                parameters: list[dict[str, Any]] = operation.get("parameters", [])
                named = {one["name"] for one in parameters if one["in"] == "path"}
                self.assertEqual((path, named), (path, set(re.findall(r"{(\w+)}", path))))
