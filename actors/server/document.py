"""The OpenAPI document, made of the table of routes: it cannot say anything else than they do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from actors.server.access import Access
from actors.server.operation import Operation
from actors.server.problem import Problem

ALWAYS = (400, 421, 429, 503)
"""The statuses any request may get."""

_PLACES = re.compile(r"{(\w+)}")
_REF = "#/components/schemas/{name}"


def document(operations: Sequence[Operation], *, version: str = "1") -> dict[str, Any]:
    """The document of some operations, OpenAPI 3.1."""
    types = [Problem]
    for operation in operations:
        types += [kind for kind in (operation.answer, operation.body, operation.query) if kind is not None]
    distinct = list(dict.fromkeys(types))
    schemas, components = msgspec.json.schema_components(distinct, ref_template=_REF)
    by_type = dict(zip(distinct, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, by_type, components)
    return {
        "openapi": "3.1.0",
        "info": {"title": "actorbus", "version": version, "description": "Workers, jobs and runs on a message bus."},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, by_type: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PLACES.findall(operation.path)
    ]
    if operation.query is not None:
        query = components[by_type[operation.query]["$ref"].rpartition("/")[2]]
        parameters += [
            {
                "name": name,
                "in": "query",
                "required": name in query.get("required", ()),
                "schema": schema,
            }
            for name, schema in query["properties"].items()
        ]
    if operation.last_event_id is not None:
        schema = {"type": "string", "pattern": operation.last_event_id}
        parameters.append({"name": "Last-Event-ID", "in": "header", "schema": schema})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": parameters,
        "responses": _answers(operation, by_type),
        "security": [] if operation.access is Access.OPEN else [{"token": [operation.access.value]}],
    }
    if operation.body is not None:
        content = {"application/json": {"schema": by_type[operation.body]}}
        described["requestBody"] = {"required": operation.body_required, "content": content}
    return described


def _answers(operation: Operation, by_type: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if operation.answer is not None:
        content["application/json"] = {"schema": by_type[operation.answer]}
    if operation.media_type is not None:
        content[operation.media_type] = {"schema": {"type": "string"}}
    answers = {str(operation.status): {"description": HTTPStatus(operation.status).phrase, "content": content}}
    statuses = {*ALWAYS, *operation.errors}
    if operation.access is not Access.OPEN:
        statuses |= {401, 403}
    if operation.body is not None:
        statuses |= {408, 413, 415, 422}
    if operation.query is not None:
        statuses.add(422)
    for status in sorted(statuses):
        described: dict[str, Any] = {"description": HTTPStatus(status).phrase}
        if status >= HTTPStatus.BAD_REQUEST:
            described["content"] = {"application/json": {"schema": by_type[Problem]}}
        answers[str(status)] = described
    return answers
