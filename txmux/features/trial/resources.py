"""The resource ``/api/reload/try``, for who may reload: first bytes may hold secrets, so only the result leaves the service."""

import zlib
from base64 import b64decode
from typing import Any

from txmux.admin.api.openapi import body
from txmux.admin.guard import RefusedError
from txmux.admin.resource import ApiAnswer, Query, ResourceList
from txmux.control.report import Report
from txmux.errors import MuxError
from txmux.features.trial.rows import TrialDocument
from txmux.net.turns import in_thread
from txmux.rules.model import Files, Rules
from txmux.rules.reading.files import LARGEST_RULES, SourceFile
from txmux.rules.reading.rules_parser import RulesParser
from txmux.wire.jsontext import MISSHAPEN, parse_json

_NOTHING = (
    "no client is remembered, so nothing can be tried: set 'remember = 1000' in [txmux] or in a [listen], "
    "reload, and try again when clients have come"
)

RESOURCES = ResourceList()


@RESOURCES.change(
    "/api/reload/try",
    "report which of the last clients would go elsewhere by the rules as they are in the files now, or by others",
    TrialDocument,
    right="all",
    takes=body({"files": str}),
)
async def _try(query: Query) -> ApiAnswer:
    part: Any = query.control.parts.get("trial")
    if part is None or not part.remembers:
        raise RefusedError(409, _NOTHING)
    try:
        packed = query.body.get("files")
        read = (
            query.control.service.read_rules() if packed is None else in_thread(_unpacked, packed)
        )
        rules = await read
    except MuxError as problem:
        errors = Report.refused(problem).errors
        raise RefusedError(422, f"the rules cannot be used: {errors[0]}", errors) from None
    document = await part.compare(rules)
    return ApiAnswer.json(document, result=document["changes"])


def _unpacked(packed: str) -> Rules:
    """Read rules from the texts of their files: `Files` as JSON, compressed by zlib, in base64. No file is opened, and this process's environment is not read."""
    try:
        data = zlib.decompressobj().decompress(b64decode(packed), 2 * LARGEST_RULES)
        files = Files.from_json(parse_json(data))
        path, text = next(iter(files.texts.items()))
    except (*MISSHAPEN, StopIteration, zlib.error) as problem:
        raise MuxError("files: is not what 'txmux check --against running' sends") from problem
    return RulesParser(SourceFile(path, text), None, known=files).rules()
