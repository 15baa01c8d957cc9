"""The interface of workers: what their handlers take and give, as JSON Schema and AsyncAPI."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, get_args, get_type_hints

import click
import msgspec

from actors.cli.command import Command
from actors.cli.output import emit, pretty
from actors.cli.settings import settings
from actors.cli.target import Target, targets
from actors.performer.handler import Shape
from actors.worker.function import Function
from actors.worker.handlers import definition_of


@click.command(cls=Command, example="actorbus schema shop:Till --asyncapi > till.json")
@click.argument("workers", nargs=-1, metavar="[NAME=]MODULE:CLASS...")
@click.option(
    "--all-from", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Every worker in DIR."
)
@click.option("--asyncapi", "as_asyncapi", is_flag=True, help="An AsyncAPI 3.0 document instead of JSON Schema.")
@click.option("--title", default="actorbus", show_default=True, help="Title of the AsyncAPI document.")
@click.option("--version", default="1", show_default=True, help="Version of the AsyncAPI document.")
@settings("json")
def schema(
    *, workers: tuple[str, ...], folder: Path | None, as_asyncapi: bool, title: str, version: str, json: bool
) -> None:
    """Print the JSON Schema of the handlers of workers. The workers are made, but not run."""
    found = [operation for target in targets(workers, folder) for operation in operations(target)]
    document = asyncapi(found, title, version) if as_asyncapi else json_schema(found)
    if json:
        emit(document)
    else:
        click.echo(pretty(document))


ANY: dict[str, Any] = {}


class Operation(NamedTuple):
    """One job that a worker does.

    Attributes:
        worker_name: Whom to ask.
        job_name: For what; None for the job without a name.
        summary: The first line of its docstring.
        payload: The type of what it takes.
        answer: The type of what it gives, or of each chunk of its stream.
        streams: Whether it streams.
    """

    worker_name: str
    job_name: str | None
    summary: str
    payload: Any
    answer: Any
    streams: bool


_STREAMS = frozenset({Shape.GENERATOR, Shape.THREAD_GENERATOR})


def operations(target: Target) -> list[Operation]:
    """What a worker does."""
    if isinstance(target.source, Function):
        served = target.source
        handler = served.handler
        streams = handler.shape in _STREAMS
        return [Operation(target.name, None, _summary(served.call), handler.type, _returned(served.call), streams)]
    definition = definition_of(target.source)
    handlers = [*definition.jobs.values(), *([definition.default] if definition.default is not None else [])]
    return [
        Operation(
            target.name,
            each.name,
            _summary(each.call) if each.name is not None else "",
            each.type,
            _returned(each.call) if each.name is not None else Any,
            each.shape in _STREAMS,
        )
        for each in handlers
    ]


def json_schema(found: Iterable[Operation]) -> dict[str, Any]:
    """The JSON Schemas of workers: by worker and job, with the types they share under `$defs`."""
    listed = list(found)
    schemas, shared = _schemas(listed, "#/$defs/{name}")
    workers: dict[str, Any] = {}
    for each, (payload, answer) in zip(listed, schemas, strict=True):
        workers.setdefault(each.worker_name, {})[each.job_name or ""] = {
            "description": each.summary,
            "payload": payload,
            "streams" if each.streams else "answer": answer,
        }
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "workers": workers, "$defs": shared}


def asyncapi(found: Iterable[Operation], title: str, version: str) -> dict[str, Any]:
    """An AsyncAPI 3.0 document: a channel for each worker, an operation with its reply for each job."""
    listed = list(found)
    schemas, shared = _schemas(listed, "#/components/schemas/{name}")
    channels: dict[str, Any] = {}
    document: dict[str, Any] = {}
    for each, (payload, answer) in zip(listed, schemas, strict=True):
        job = each.job_name or "job"
        channel = channels.setdefault(each.worker_name, {"address": each.worker_name, "messages": {}})
        channel["messages"][f"{job}.request"] = {"summary": each.summary, "payload": payload}
        channel["messages"][f"{job}.answer"] = {
            "summary": "one chunk of its stream" if each.streams else "",
            "payload": answer,
        }
        place = f"#/channels/{each.worker_name.replace('/', '~1')}"
        document[f"{each.worker_name}.{job}"] = {
            "action": "receive",
            "channel": {"$ref": place},
            "summary": each.summary,
            "messages": [{"$ref": f"{place}/messages/{job}.request"}],
            "reply": {"channel": {"$ref": place}, "messages": [{"$ref": f"{place}/messages/{job}.answer"}]},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {"title": title, "version": version},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": document,
        "components": {"schemas": shared},
    }


def _schemas(listed: list[Operation], template: str) -> tuple[list[tuple[Any, Any]], dict[str, Any]]:
    types = [type_ for each in listed for type_ in (each.payload, each.answer)]
    shared: dict[str, Any] = {}

    def hook(type_: type) -> dict[str, Any]:
        model = getattr(type_, "model_json_schema", None)
        if model is None:
            return {"description": f"the Python type {type_.__module__}.{type_.__qualname__}"}
        schema: dict[str, Any] = model(ref_template=template.replace("{name}", "{model}"))
        shared.update(schema.pop("$defs", {}))
        return schema

    schemas: list[Any] = []
    for type_ in types:
        try:
            (schema,), components = msgspec.json.schema_components([type_], schema_hook=hook, ref_template=template)
        except TypeError:  # a type that has no form in JSON
            schema, components = {"description": f"the Python type {type_}"}, {}
        schemas.append(schema)
        shared.update(components)
    return list(zip(schemas[::2], schemas[1::2], strict=True)), shared


def _returned(call: Callable[..., Any]) -> Any:
    try:
        returned = get_type_hints(call).get("return", Any)
    except (NameError, AttributeError):  # names a type that is local to a function
        return Any
    if inspect.isasyncgenfunction(call):
        return next(iter(get_args(returned)), Any)
    return returned


def _summary(call: Callable[..., Any]) -> str:
    return (inspect.getdoc(call) or "").partition("\n")[0]
