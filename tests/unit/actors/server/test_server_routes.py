"""The server, asked without a network: what each route answers."""

from __future__ import annotations

import ast
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import anyio
import httpx
import msgspec
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from actors import BaseWorker, Client, Job, WorkerRunner, function, job
from actors.runs import RunStatus
from actors.server import create_app, serve
from actors.server.app import OPERATIONS, service_of
from actors.server.operation import Endpoint, document
from actors.server.problem import Problem
from tests.support.http import asking, double, events_of, greet
from tests.support.workers import Desk

pytestmark = pytest.mark.anyio

README = Path(__file__).resolve().parents[4] / "README.md"


class Pair(msgspec.Struct):
    one: Any
    two: Any


def app_of(*workers: BaseWorker, **settings: Any) -> Starlette:
    return serve(workers=workers or [Desk()], functions=[greet, double], **settings)


async def test_functions_are_listed_and_invoked_in_the_shapes_of_agnt5() -> None:
    async with asking(app_of()) as client:
        listed = (await client.get("/functions")).json()
        assert listed["count"] == len(listed["functions"])
        by_name = {each["name"]: each for each in listed["functions"]}
        assert (by_name["greet"]["type"], by_name["greet"]["description"]) == ("function", "Greet somebody.")
        assert by_name["desk:echo"]["type"] == "job"
        for handler, payload, result in (
            ("greet", {"name": "ann"}, "hello ann"),
            ("greet", {"name": "ann", "times": 2}, "hello annhello ann"),
            ("double", {"number": 4}, 8),
            ("double", 4, 8),
            ("desk:echo", [1, None], [1, None]),
        ):
            response = await client.post(f"/invoke/{handler}", json=payload)
            assert response.status_code == 200
            answer = response.json()
            assert answer.keys() == {"result", "invocation_id"}
            assert answer["result"] == result
            assert answer["invocation_id"]


class Anywhere(BaseWorker):
    @job(name="a/b: c")
    async def where(self) -> str:
        return self.name


@pytest.mark.parametrize("name", ["user/42", "session:123", "voice agent", "a/b:c", "50%", "Größe?"])
async def test_names_with_separators_are_invoked_by_their_address(name: str) -> None:
    async with asking(app_of(Anywhere(name))) as client:
        listed = [each["name"] for each in (await client.get("/functions")).json()["functions"]]
        assert f"{name}:a/b: c" in listed
        response = await client.post(f"/invoke/{quote(f'{name}:a/b: c', safe='')}")
        assert (response.status_code, response.json().get("result")) == (200, name)


@pytest.mark.parametrize(
    ("handler", "body", "status", "code"),
    [
        ("nobody", {}, 404, "no_such_handler"),
        ("desk:nothing", {}, 404, "no_such_handler"),
        ("desk", {}, 404, "no_such_handler"),
        ("greet", {"nam": "ann"}, 422, "invalid_request"),
        ("greet", {"name": "ann", "times": "many"}, 422, "invalid_request"),
        ("greet", None, 422, "invalid_request"),
        ("desk:refuse", "I will not", 500, "handler_failed"),
    ],
)
async def test_an_invocation_that_fails_says_why(handler: str, body: Any, status: int, code: str) -> None:
    async with asking(app_of()) as client:
        response = await client.post(f"/invoke/{handler}", json=body)
        problem = response.json()
        assert (response.status_code, problem["status"], problem["code"]) == (status, status, code)
        assert problem["error"] == problem["message"]
        assert problem["request_id"] == response.headers["x-request-id"]


async def test_a_job_or_a_run_that_is_asked_for_in_a_trace_is_part_of_it() -> None:
    class Teller(BaseWorker):
        @job
        async def tell(self, job: Job[Any]) -> Any:
            return [job.trace.parent, job.trace.state] if job.trace is not None else "nothing"

    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    given = {"traceparent": parent, "tracestate": "vendor=1"}
    stream = {"accept": "text/event-stream"}
    async with asking(serve(workers=[Teller("ann")])) as client:
        assert (await client.post("/invoke/ann:tell", headers=given)).json()["result"] == [parent, "vendor=1"]
        events = events_of((await client.post("/invoke/ann:tell", headers={**given, **stream})).text)
        assert events[-1].data["result"] == [parent, "vendor=1"]
        response = await client.post("/submit", json={"worker_names": ["ann"], "name": "tell"}, headers=given)
        result = (await client.get(f"{response.headers['location']}/result?timeout=50")).json()
        assert result["result"] == [parent, "vendor=1"]
        for wrong in ({}, {"traceparent": "00-0-0-0", "tracestate": "vendor=1"}, {"tracestate": "vendor=1"}):
            assert (await client.post("/invoke/ann:tell", headers=wrong)).json()["result"] == "nothing"


async def test_an_invocation_streams_when_asked_to() -> None:
    stream = {"accept": "text/event-stream"}
    async with asking(app_of()) as client:
        response = await client.post("/invoke/desk:count", json=3, headers=stream)
        assert response.headers["content-type"].startswith("text/event-stream")
        events = events_of(response.text)
        assert [each.data["data"] for each in events if each.type == "stream_data"] == [0, 1, 2]
        assert events[-1].type == "result"
        assert events_of((await client.post("/invoke/double", json=2, headers=stream)).text)[-1].data["result"] == 4
        failed = events_of((await client.post("/invoke/desk:refuse", json="no", headers=stream)).text)[-1]
        assert (failed.type, failed.data["status"], failed.data["error"]) == ("error", 500, "ValueError: no")


async def test_whatever_may_travel_is_shown_as_json() -> None:
    values = {
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "sum": Decimal("1.50"),
        "id": UUID(int=1),
        "bytes": b"ab",
        "big": 2**70,
        "nothing": float("nan"),
        "tuple": (1, 2),
    }

    @function()
    def exotic(with_keys: bool) -> Any:
        return values | ({"keys": {(1, 2): {3}, None: 4}} if with_keys else {})

    @function()
    def pair() -> Pair:
        return Pair({(1,): 1}, b"x")

    plain = {
        "time": "2026-01-02T00:00:00Z",
        "sum": "1.50",
        "id": str(UUID(int=1)),
        "bytes": "YWI=",
        "big": 2**70,
        "nothing": None,
        "tuple": [1, 2],
    }
    async with asking(serve(functions=[exotic, pair])) as client:
        assert (await client.post("/invoke/exotic", json=False)).json()["result"] == plain
        shown = (await client.post("/invoke/exotic", json=True)).json()["result"]
        assert shown == plain | {"keys": {"(1, 2)": [3], "None": 4}}
        assert (await client.post("/invoke/pair")).json()["result"] == {"one": {"(1,)": 1}, "two": "eA=="}


async def test_a_run_is_submitted_watched_and_found_again() -> None:
    async with asking(app_of()) as client:
        submission = {"worker_names": ["desk"], "name": "count", "payload": 3, "idempotency_key": "k"}
        response = await client.post("/submit", json=submission)
        assert response.status_code == 202
        run = msgspec.json.decode(response.content, type=RunStatus)
        assert response.headers["location"] == f"/runs/{run.run_id}"
        assert (await client.post("/submit", json=submission)).json()["run_id"] == run.run_id
        other = await client.post("/submit", json=submission | {"payload": 4})
        assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")

        result = await client.get(f"/runs/{run.run_id}/result", params={"timeout": 50})
        assert (result.status_code, result.json()["state"]) == (200, "completed")
        assert (await client.get(f"/runs/{run.run_id}")).json()["state"] == "completed"
        assert [each["run_id"] for each in (await client.get("/runs?state=completed")).json()["runs"]] == [run.run_id]
        assert (await client.get("/runs?state=failed")).json() == {"runs": [], "after": None}

        events = events_of((await client.get(f"/runs/{run.run_id}/stream")).text)
        assert [each.id for each in events] == [str(number) for number in range(len(events))]
        assert [each.data["data"] for each in events if each.type == "stream"] == [0, 1, 2]
        assert events[-1].type == "group_completed"


async def test_a_reader_of_a_run_goes_on_where_it_left_without_gap_or_repeat() -> None:
    async with asking(app_of()) as client:
        submission = {"worker_names": ["desk"], "name": "count", "payload": 5}
        place = (await client.post("/submit", json=submission)).headers["location"]
        whole = [(each.id, each.data) for each in events_of((await client.get(f"{place}/stream")).text)]
        for seen in range(len(whole) - 1):
            rest = await client.get(f"{place}/stream", headers={"last-event-id": str(seen)})
            assert [(each.id, each.data) for each in events_of(rest.text)] == whole[seen + 1 :]
        for seen in (len(whole) - 1, len(whole), 10**17):
            response = await client.get(f"{place}/stream", headers={"last-event-id": str(seen)})
            assert response.status_code == 204, "a browser would else come back for ever"
        for absurd in (b"-1", b"1e3", b"0x1", b"9" * 19, "\u0663".encode(), b"1, 2", b"\xff"):
            response = await client.get(f"{place}/stream", headers={b"last-event-id": absurd})
            assert (response.status_code, response.json()["code"]) == (400, "bad_last_event_id"), absurd


async def test_a_run_is_cancelled_and_has_no_result() -> None:
    desk = Desk()
    async with asking(app_of(desk)) as client:
        place = (await client.post("/submit", json={"worker_names": ["desk"], "name": "hold"})).headers["location"]
        await desk.begun.wait()
        waiting = await client.get(f"{place}/result")
        assert (waiting.status_code, waiting.json()["state"]) == (202, "running")
        assert (await client.post(f"{place}/cancel", json={"reason": "enough"})).status_code == 200
        events = events_of((await client.get(f"{place}/stream")).text)
        assert events[-1].type == "run_cancelled"
        assert desk.stopped.is_set()
        result = await client.get(f"{place}/result")
        assert (result.status_code, result.json()["code"]) == (409, "run_cancelled")
        assert "enough" in result.json()["message"]
        assert (await client.post(f"{place}/cancel")).json()["state"] == "cancelled"


@pytest.mark.parametrize("run_id", ["x", "0-0", "..", "%00", "a" * 2000, "%F0%9F%92%A9", "key", "'; DROP TABLE"])
async def test_a_run_that_there_is_not_is_not_found(run_id: str) -> None:
    async with asking(app_of()) as client:
        for method, path in (("GET", ""), ("GET", "/result"), ("GET", "/stream"), ("POST", "/cancel")):
            response = await client.request(method, f"/runs/{run_id}{path}")
            assert response.status_code in {404, 405}
            msgspec.json.decode(response.content, type=Problem)


async def test_runs_are_listed_page_by_page() -> None:
    async with asking(app_of()) as client:
        for _ in range(5):
            await client.post("/submit", json={"worker_names": ["desk"], "name": "echo"})
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while query:
            page = (await client.get("/runs", params=query)).json()
            seen += [each["run_id"] for each in page["runs"]]
            query = {"limit": 2, "after": page["after"]} if page["after"] else {}
        assert len(seen) == len(set(seen)) == 5
        assert seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    "submission",
    [
        {},
        [],
        {"worker_names": []},
        {"worker_names": "desk"},
        {"worker_names": ["desk", "desk"]},
        {"worker_names": ["no such name!"]},
        {"worker_names": ["desk"], "timeout": -1},
        {"worker_names": ["desk"], "ttl": -1},
        {"worker_names": ["desk"], "delivery": "perhaps"},
        {"worker_names": ["desk"], "surprise": 1},
        {"worker_names": ["desk"], "payloads": {"other": 1}, "idempotency_key": ""},
    ],
)
async def test_a_submission_that_cannot_be_done_is_refused(submission: Any) -> None:
    async with asking(app_of()) as client:
        response = await client.post("/submit", json=submission)
        assert response.status_code == 422, response.text
        assert msgspec.json.decode(response.content, type=Problem).code == "invalid_request"
        assert (await client.get("/runs")).json()["runs"] == []


async def test_workers_are_listed_without_the_servers_own() -> None:
    async with asking(app_of()) as client:
        listed = (await client.get("/workers")).json()
        names = {each["worker_name"] for each in listed["workers"]}
        assert listed["count"] == len(listed["workers"])
        assert {"desk", "greet", "double"} <= names
        assert not [name for name in names if name.startswith(("RunTails", "_Requester"))]


async def test_it_is_ready_before_the_first_request_and_says_when_it_is_not() -> None:
    app = app_of()
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/readyz", "/health", "/livez", "/runs"):
            response = await client.get(path)
            assert response.status_code == 503
            assert response.headers["retry-after"]
            assert response.json()["retryable"]
        async with app.router.lifespan_context(app):
            for path in ("/readyz", "/health", "/livez"):
                assert (await client.get(path)).status_code == 200
            service = service_of(app)
            await service.drain()
            assert (await client.get("/livez")).status_code == 200, "who drains is not to be killed"
            assert (await client.get("/readyz")).json()["code"] == "not_ready"
            assert (await client.get("/runs")).status_code == 200
            for path in ("/invoke/greet", "/submit"):
                response = await client.post(path, json={})
                assert (response.status_code, response.json()["code"]) == (503, "ending")
                assert response.headers["retry-after"]


async def test_a_runner_that_dies_is_neither_alive_nor_ready() -> None:
    async with WorkerRunner(handle_sigint=False, handle_sigterm=False) as runner:
        app = create_app(runner)
        async with asking(app) as client:
            assert (await client.get("/readyz")).status_code == 200
            service_of(app)._runner = WorkerRunner()
            assert (await client.get("/livez")).status_code == 503
            assert (await client.get("/readyz")).status_code == 503
            service_of(app)._runner = runner


async def test_it_drains_what_is_under_way_before_it_ends() -> None:
    desk = Desk()
    app = app_of(desk)
    answers: list[httpx.Response] = []
    async with asking(app) as client, anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append(await client.post("/invoke/desk:hold"))

        tasks.start_soon(ask)
        await desk.begun.wait()

        async def drain() -> None:
            await service_of(app).drain()
            drained.set()

        drained = anyio.Event()
        tasks.start_soon(drain)
        await anyio.wait_all_tasks_blocked()
        assert (await client.post("/invoke/greet", json="x")).status_code == 503
        assert not drained.is_set()
        desk.open.set()
        await drained.wait()
    assert answers[0].json()["result"] == "held"


async def test_it_can_be_mounted_by_an_app_that_runs_its_lifespan() -> None:
    inner = app_of(token="secret")  # noqa: S106 - it opens nothing
    outer = Starlette(routes=[Mount("/bus", inner)], lifespan=inner.router.lifespan_context)
    async with asking(outer, headers={"authorization": "Bearer secret"}) as client:
        assert (await client.get("/bus/readyz")).status_code == 200
        assert (await client.post("/bus/invoke/double", json=2)).json()["result"] == 4
        response = await client.post("/bus/submit", json={"worker_names": ["desk"], "name": "echo"})
        assert response.headers["location"] == f"/bus/runs/{response.json()['run_id']}"
        assert (await client.get(response.headers["location"])).status_code == 200
        assert (await client.get("/bus/runs", headers={"authorization": ""})).status_code == 401


async def test_its_figures_are_its_own() -> None:
    one, two = app_of(), serve(functions=[double])
    async with asking(one) as client, asking(two) as other:
        await client.post("/invoke/double", json=2)
        await client.post("/invoke/desk:refuse", json="x")
        text = (await client.get("/metrics")).text
        assert 'actorbus_http_requests_total{method="POST",route="/invoke/{handler}",status="200"} 1.0' in text
        assert 'actorbus_jobs_total{status="completed"} 1.0' in text
        assert 'actorbus_jobs_total{status="error"} 1.0' in text
        assert "actorbus_ready 1.0" in text
        assert "/invoke/{handler}" not in (await other.get("/metrics")).text


def test_the_document_and_the_routes_are_the_same() -> None:
    app = app_of()
    routed = {
        (route.path.replace(":path}", "}"), method)
        for route in app.routes
        if isinstance(route, Route) and isinstance(route.endpoint, Endpoint)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert len(routed) == len(app.routes)
    described = document(OPERATIONS)["paths"]
    assert routed == {(path, method.upper()) for path, methods in described.items() for method in methods}
    names = [each.name for each in OPERATIONS]
    assert len(set(names)) == len(names)


async def test_the_document_says_what_is_answered() -> None:
    """Every answer that is documented as JSON can be read as the type the document was made of."""
    answers = {each.path: each.answer for each in OPERATIONS if each.method == "GET" and each.answer}
    async with asking(app_of()) as client:
        place = (await client.post("/submit", json={"worker_names": ["desk"], "name": "echo"})).headers["location"]
        await client.get(f"{place}/result?timeout=50")
        assert (await client.get("/openapi.json")).json() == json.loads(json.dumps(document(OPERATIONS)))
        for path, kind in answers.items():
            response = await client.get(path.replace("/runs/{run_id}", place))
            assert response.status_code == 200, path
            msgspec.json.decode(response.content, type=kind)


async def test_the_server_of_the_readme_counts() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    workers, server = blocks[0], next(block for block in blocks if "actors.server" in block)
    names: dict[str, Any] = {}
    exec(workers.replace("anyio.run(main)", ""), names)  # noqa: S102 - our own
    exec(server, names)  # noqa: S102 - as above
    async with asking(names["app"]) as client:
        assert (await client.post("/invoke/ann:count", json="one two")).json()["result"] == 2


async def test_the_run_of_the_readme_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(blocks[0].replace("anyio.run(main)", ""), names)  # noqa: S102 - our own
    (block,) = (block for block in blocks if "client.submit" in block)
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(names["Counter"]("ann"))
        program = compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        await eval(program, {"client": client})  # noqa: S307 - as above
    assert capsys.readouterr().out.endswith(" 2\n")


def test_every_route_is_described() -> None:
    text = (README.parent / "docs" / "server.md").read_text("utf-8")
    for each in OPERATIONS:
        path = each.path.replace("{run_id}", "{id}")
        forms = (f"`{each.method} {path}`", f"`{path}`", f"`/{path.rpartition('/')[2]}`")
        assert any(form in text for form in forms), path
