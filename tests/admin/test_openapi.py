"""The description of the API, compared with the API; `tests.test_docs` compares it with the documentation."""

import json
import re
from typing import Annotated, Any, Literal

from jsonschema import Draft202012Validator, validators  # type: ignore[import-untyped]
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.everything import all_documents, start_everything
from tests.support.everything import DOCUMENTS
from tests.support.installed import as_installed
from tests.support.kit import AdminCase, make_folder
from tests.support.named_files import KEY_OF_HELLOS
from txmux.admin.api.openapi import body, description
from txmux.admin.guard import RefusedError
from txmux.admin.resource import check_body
from txmux.admin.site import ADMIN

FOR_PEOPLE = ("/", "/static/{name}", "/login", "/enter", "/metrics")


class DescriptionTest(SynchronousTestCase):
    def test_resources_and_answers(self) -> None:
        """Each that a worker has a part in says by a header which part is missing."""
        lacking = {
            path
            for path, methods in description(ADMIN)["paths"].items()
            for operation in methods.values()
            if "Txmux-Missing" in operation["responses"]["200"].get("headers", {})
        }
        lists = (
            "status", "connections", "connections/{id}", "clients", "certificates", "routes",
            "backends",
        )  # fmt: skip
        self.assertEqual(lacking, {f"/api/{name}" for name in lists})
        described = {
            (method.upper(), path)
            for path, methods in description(ADMIN)["paths"].items()
            for method in methods
        }
        there_is = {(one.method, one.path) for one in ADMIN if one.path not in FOR_PEOPLE}
        self.assertEqual(described, there_is)
        whole = description(ADMIN)  # all references resolve and all schemas are used
        named = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(whole)))
        self.assertEqual(named, set(whole["components"]["schemas"]))
        paths = description(ADMIN)["paths"]
        for path, is_required in (("/api/bans", True), ("/api/reload", False)):
            self.assertEqual(paths[path]["post"]["requestBody"]["required"], is_required)
        for path, methods in description(ADMIN)["paths"].items():
            for method, operation in methods.items():
                self.assertEqual("requestBody" in operation, method == "post", path)
                parameters: list[dict[str, Any]] = operation.get("parameters", [])
                named = {one["name"] for one in parameters if one["in"] == "path"}
                self.assertEqual((path, named), (path, set(re.findall(r"{(\w+)}", path))))

    # A body has to fit its schema; the refusal says what a field may be.
    def test_values_of_each_type(self) -> None:
        for form, good, bad, what in (
            (bool, [True, False], [0, "true", None], "true or false"),
            (str, ["", "x"], [1, None, ["x"]], "a text"),
            (Literal["a", "b"], ["a", "b"], ["c", "", None, ["a"]], "'a' or 'b'"),
            (Annotated[int, 2, 9], [2, 9], [1, 10, 2.0, True, "2", None], "a whole number from 2 to 9"),
            (
                Annotated[int, 2, 9] | None, [2, 9, None], [1, 10, False, "a" * 58, "a" * 59],
                "a whole number from 2 to 9",
            ),
        ):  # fmt: skip
            schema = body({"x": form, "y": str})
            for value in good:
                check_body({"x": value}, schema)
            for wrong in bad:
                with self.assertRaises(RefusedError) as raised:
                    check_body({"y": "", "x": wrong}, schema)
                shown = repr(wrong) if len(repr(wrong)) < 61 else f"{repr(wrong)[:60]}…"
                told = raised.exception.status, str(raised.exception)
                self.assertEqual(told, (400, f"x: must be {what}, not {shown}"))
        with self.assertRaisesRegex(
            RefusedError, "^stat: there is no such field; did you mean 'state'"
        ):
            check_body({"stat": 1}, body({"state": str}))
        for resource in ADMIN:  # every number in a body has both bounds
            for name, schema in (resource.takes or {}).get("properties", {}).items():
                for one in schema.get("anyOf", [schema]):
                    if one.get("type") == "integer":
                        self.assertIn("maximum", one, (resource.path, name))


def shape(value: Any, at: str = "") -> dict[str, str]:
    if isinstance(value, dict):
        inner = [shape(one, f"{at}.{name}") for name, one in value.items()]
    elif isinstance(value, list):
        inner = [shape(one, f"{at}[]") for one in value]
    else:
        return {at: "number" if type(value) in {int, float} else type(value).__name__}
    return {path: kind for one in inner for path, kind in sorted(one.items())}


def _without_others(schema: Any) -> Any:
    """Forbid the fields that a schema does not name, which OpenAPI allows."""
    if isinstance(schema, list):
        return [*map(_without_others, schema)]
    if not isinstance(schema, dict):
        return schema
    others = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return {**others, **{name: _without_others(one) for name, one in schema.items()}}


_Validator = validators.extend(  # to it by itself, 2.0 would be an integer
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, it: type(it) is int
    ),
)


class AnswersTest(AdminCase):
    """Answers have the fields of the description, and no others, which OpenAPI by itself allows."""

    async def test_answers_of_a_service_that_has_some_of_everything(self) -> None:
        """So have the recorded ones, by which the views are tested: they have the shape of those of now."""
        keys = make_folder(self)
        (keys / "a.pem").write_text(KEY_OF_HELLOS)
        web, gone = await start_everything(self, as_installed(f"ech_keys = {keys}"))
        metrics = (await self.get("/metrics")).body.decode()
        for labels in (
            'listener="public"', 'listener="names"', 'route="site"', 'route="tls"',
            f'backend="web",server="127.0.0.1:{web}"', f'backend="web",server="127.0.0.1:{gone}"',
        ):  # fmt: skip
            self.assertIn(labels, metrics)
        documents = description(ADMIN)
        self.schemas = documents["components"]["schemas"]
        identity = (await self.get("/api/connections")).json[0]["id"]
        bodies: dict[str, Any] = {
            "/api/reload": None, "/api/backends/web/hold": None, "/api/explain": {"text": "SSH"},
            "/api/bans": {"network": "192.0.2.8"}, "/api/connections/close": {"route": "none"},
        }  # fmt: skip
        found, known = shape(await all_documents(self)), {name for its in self.schemas.values() for name in its.get("properties", ())}  # fmt: skip
        lost = {at: kind for at, kind in shape(DOCUMENTS).items() if at not in found}
        self.assertEqual({at for at in lost if at.rpartition(".")[2] in known}, set())
        for at, kind in shape(DOCUMENTS).items() - lost.items():
            self.assertIn(kind, {found[at], "NoneType"} if found[at] != "NoneType" else {kind}, at)
        for path, sent in bodies.items():
            answer = await self.post(path, sent)
            self.compare("post", path.replace("/web/", "/{backend}/"), answer.json, documents)
        for path, methods in documents["paths"].items():
            if "get" in methods and path not in {"/api/events", "/readyz"}:
                answer = await self.get(path.replace("{id}", identity))
                self.assertNotIn(answer.json, ([], {}), path)
                self.compare("get", path, answer.json, documents)

    def compare(self, method: str, path: str, value: object, documents: dict[str, Any]) -> None:
        answer = documents["paths"][path][method]["responses"]["200"]
        schema = answer["content"]["application/json"]["schema"]
        named = {"components": {"schemas": self.schemas}}
        found = _Validator(_without_others({**schema, **named})).iter_errors(value)
        self.assertEqual([f"{path} {one.json_path}: {one.message}" for one in found], [])
