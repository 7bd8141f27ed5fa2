"""The API for programs that read such descriptions (OpenAPI 3.1): made from the resources and the types of their answers."""

import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ForwardRef, Literal, Union, get_args, get_origin

from txmux.admin.resource import LACKS, Resource
from txmux.telemetry import documents
from txmux.telemetry.documents import every_field_of
from txmux.version import __version__

_REFUSALS = {
    400: "invalid parameter, path or body",
    401: "the token is missing or wrong",
    403: "the caller's right is too low, or the Host or Origin header does not match this endpoint",
    404: "not found",
    405: "method not allowed",
    408: "the request has not arrived in time",
    409: "the change was refused",
    413: "the body is too long",
    415: "the Content-Type is not application/json",
    422: "the change was refused",
    429: "there were too many wrong tokens",
    431: "a line of the request is too long",
    501: "a part of txmux is not installed",
    503: "no worker answers, which alone could tell",
}
_MORE = {("/readyz", "503"): "something is missing for that"}
"""Other statuses of a path with the same answer as 200."""
_IN_PATH = {
    "id": "as in the access log", "backend": "its name", "server": "as the rules write it",
    "certificate": "one of its names", "name": "the listener's",
}  # fmt: skip


class Schema(dict[str, Any]):
    """A schema of a value (JSON Schema, draft 2020-12)."""


def _name(document: type) -> str:
    return document.__name__.removesuffix("Document")


_SIMPLE: dict[Any, Schema] = {
    str: Schema(type="string"), float: Schema(type="number"), int: Schema(type="integer", minimum=0),
    bool: Schema(type="boolean"), type(None): Schema(type="null"), object: Schema(type="object"),
}  # fmt: skip


def schema_of(form: Any) -> Schema:  # noqa: PLR0911 - one for each kind of form
    """Describe a value.

    Args:
        form: A type as in Python, where an ``int`` has no sign, and ``Annotated[int, 1, 9]`` has bounds; a document, to which later
            versions may add, and which is referred to if it is one of `_COMPONENTS`; or a `Schema`.
    """
    if isinstance(form, Schema):
        return form
    if isinstance(form, ForwardRef):
        form = getattr(documents, form.__forward_arg__)
    if form in _COMPONENTS:
        return Schema({"$ref": f"#/components/schemas/{_name(form)}"})
    kind, inner = get_origin(form), get_args(form)
    if kind in {Union, types.UnionType}:
        return Schema(anyOf=[schema_of(alternative) for alternative in inner])
    if kind is Literal:
        return Schema(type="string", enum=[*inner])
    if kind is Annotated:
        bounds = (bound for bound in form.__metadata__ if isinstance(bound, int))
        named = dict(zip(("minimum", "maximum"), bounds, strict=False))
        return Schema(schema_of(form.__origin__) | named)
    if kind in {list, Iterable}:
        return Schema(type="array", items=schema_of(inner[0]))
    if kind is dict:
        return Schema(type="object", additionalProperties=schema_of(inner[1]))
    return _SIMPLE[form] if form in _SIMPLE else _object(form)


def _object(document: type) -> Schema:
    fields = every_field_of(document)
    properties = {field.name: schema_of(field.type) for field in fields}
    required = [field.name for field in fields if not field.is_optional]
    return Schema(type="object", properties=properties, required=required)


def body(fields: Mapping[str, Any], **more: Any) -> Schema:
    """Describe the body of a request, which has these fields and no others; `more` are further keywords of JSON Schema."""
    properties = {name: schema_of(form) for name, form in fields.items()}
    return Schema(type="object", properties=properties, additionalProperties=False, **more)


_COMPONENTS = (
    documents.Error, documents.Done, documents.Closed, documents.Upgraded, documents.UpgradeCheck, documents.ConnectionDocument,
    documents.ExplainedConnectionDocument, documents.DecisionDocument, documents.ExplanationDocument, documents.ListenerAnswer,
    documents.RouteDocument, documents.BackendDocument, documents.ClientDocument, documents.CertificateDocument, documents.BanDocument,
    documents.EndDocument, documents.FileDocument, documents.StatusDocument, documents.Ready,
)  # fmt: skip
"""Documents with a name in the description, to which others refer."""


_INCOMPLETE = {
    LACKS: {
        "description": "Only where the answer lacks the part of a worker: which, and why.",
        "schema": schema_of(str),
    }
}


def _answer(what: str, schema: Schema, type_: str = "application/json") -> dict[str, Any]:
    return {"description": what, "content": {type_: {"schema": schema}}}


def _operation(resource: Resource) -> dict[str, Any]:
    if resource.is_stream:
        what = "a stream that ends with the service"
        return {
            "summary": resource.summary,
            "responses": {"200": _answer(what, schema_of(str), "text/event-stream")},
        }
    schema = schema_of(resource.gives)
    refusals = {str(status): {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS}
    more = {
        status: _answer(why, schema) for (p, status), why in _MORE.items() if p == resource.path
    }
    headers = {"headers": _INCOMPLETE} if resource.may_lack else {}
    operation: dict[str, Any] = {
        "summary": resource.summary,
        "responses": {"200": _answer(resource.summary, schema) | headers, **refusals, **more},
    }
    parameters = [
        _parameter(name, "path", Schema(type="string", minLength=1))
        | {"required": True, "description": _IN_PATH[name]}
        for name in resource.variables
    ]
    parameters += [_parameter(name, "query", form) for name, form in resource.parameters.items()]
    if parameters:
        operation["parameters"] = parameters
    if resource.method == "POST":
        required = resource.takes is not None
        content = {"application/json": {"schema": resource.takes if required else body({})}}
        operation["requestBody"] = {"required": required, "content": content}
    return operation


def _parameter(name: str, location: str, schema: Schema) -> dict[str, Any]:
    return {"name": name, "in": location, "schema": schema}


def description(resources: Iterable[Resource]) -> dict[str, Any]:
    """Describe the API as far as it is for programs: resources without a summary are for browsers."""
    paths: dict[str, dict[str, Any]] = {}
    for resource in sorted(resources, key=lambda resource: (resource.path, resource.method)):
        if resource.summary:
            paths.setdefault(resource.path, {})[resource.method.lower()] = _operation(resource)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The API of a running txmux service",
            "version": __version__,
            "description": "The reference has more about each answer.",
        },
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": {_name(document): _object(document) for document in _COMPONENTS},
            "responses": {
                str(status): _answer(why, schema_of(documents.Error))
                for status, why in _REFUSALS.items()
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
