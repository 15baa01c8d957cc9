"""The server and who should not get at it: tokens, hosts, origins, and bodies that are too much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest
from starlette.applications import Starlette

from actors.server import ServerSettings, check_binding, serve
from actors.server.access import MOST_ADDRESSES, Access, RateLimit
from actors.server.app import OPERATIONS
from actors.server.problem import Problem
from tests.support.http import asking, double, greet

pytestmark = pytest.mark.anyio

TOKEN = {"token": "op"}
JSON = {"content-type": "application/json"}


def app_of(**settings: Any) -> Starlette:
    return serve(functions=[greet, double], **settings)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_each_route_asks_for_its_token(operation: Any) -> None:
    path = operation.path.replace("{run_id}", "0-0").replace("{handler}", "double")
    settings = {"token": "op", "read_token": "read", "max_streams": 0}  # no stream begins that would not end
    async with asking(app_of(**settings)) as client:

        async def status(headers: dict[str, str]) -> int:
            response = await client.request(operation.method, path, headers=headers)
            if response.status_code >= 400:
                msgspec.json.decode(response.content, type=Problem)
            return response.status_code

        for wrong in ({}, bearer("wrong"), bearer(""), bearer("op2"), bearer("o"), {"authorization": "op"}):
            assert (await status(wrong) == 401) is (operation.access is not Access.OPEN)
        assert (await status({"authorization": "Basic op"}) == 401) is (operation.access is not Access.OPEN)
        assert (await status(bearer("read")) == 403) is (operation.access is Access.OPERATE)
        assert await status(bearer("op")) not in {401, 403}
        assert await status({"authorization": "bearer op"}) not in {401, 403}


@pytest.mark.parametrize(
    "path",
    ["//runs", "/runs/", "/./runs", "/livez/.." + "/runs", "/RUNS", "/%72uns", "/runs%2f", "/livez;/runs", "/runs#"],
)
async def test_no_way_of_writing_a_path_leads_round_the_token(path: str) -> None:
    async with asking(app_of(**TOKEN)) as client:
        response = await client.get(path)
        assert response.status_code in {401, 404}
        assert "runs" not in response.json()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:80", 200),
        ("api.example.com", 200),
        ("example.com", 421),
        ("evil.com", 421),
        ("localhost.evil.com", 421),
        ("evil-localhost", 421),
        ("api.example.com.evil.com", 421),
        ("", 400),
        ("a b", 400),
        ("localhost:port", 400),
        ("localhost@evil.com", 400),
        ("localhost, evil.com", 400),
        ("\u00e9vil", 400),
    ],
)
async def test_only_names_of_its_own_are_answered(host: str, status: int) -> None:
    app = app_of(allowed_hosts=("localhost", "127.0.0.1", "[::1]", "*.example.com"))
    async with asking(app) as client:
        response = await client.get("/readyz", headers={b"host": host.encode("latin-1")})
        assert response.status_code == status
        if status != 200:
            msgspec.json.decode(response.content, type=Problem)


async def test_two_hosts_are_none() -> None:
    async with asking(app_of()) as client:
        response = await client.get("/readyz", headers=[("host", "localhost"), ("host", "localhost")])
        assert response.status_code == 400


async def test_pages_of_others_may_not_ask_and_pages_that_are_named_may() -> None:
    page, other = "https://app.example.com", "https://evil.com"
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    async with asking(app_of()) as client:
        assert (await client.post("/invoke/double", json=2)).status_code == 200
        assert (await client.post("/invoke/double", json=2, headers={"origin": "http://localhost"})).status_code == 200
        for origin in (page, other, "null", "http://localhost:1", "http://localhost.evil.com"):
            response = await client.post("/invoke/double", json=2, headers={"origin": origin})
            assert (response.status_code, response.json()["code"]) == (403, "wrong_origin")
            response = await client.options("/submit", headers={"origin": origin, **asks})
            assert response.status_code == 403
            assert not any(name.startswith("access-control") for name in response.headers)
        assert "access-control-allow-origin" not in (await client.get("/runs", headers={"origin": page})).headers
    async with asking(app_of(cors_origins=(page,), **TOKEN)) as client:
        allowed = await client.options("/submit", headers={"origin": page, **asks})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, page)
        headers = {"origin": page, **bearer("op")}
        response = await client.post("/invoke/double", json=2, headers=headers)
        assert (response.json()["result"], response.headers["access-control-allow-origin"]) == (4, page)
        assert (await client.options("/submit", headers={"origin": other, **asks})).status_code == 403
        strange = {**asks, "origin": page, "access-control-request-method": "TRACE"}
        msgspec.json.decode((await client.options("/submit", headers=strange)).content, type=Problem)
        assert "access-control-allow-origin" not in (await client.get("/livez", headers={"origin": other})).headers


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", JSON, 400, "bad_json"),
        (b"\xff\xfe", JSON, 400, "bad_json"),
        (b'"\\ud800"', JSON, 400, "bad_json"),
        (b"NaN", JSON, 400, "bad_json"),
        (b"1" * 5_000, JSON, 400, "bad_json"),
        (b"1e999", JSON, 400, "bad_json"),
        (b"{} {}", JSON, 400, "bad_json"),
        (b"[" * 20_000, JSON, 400, "too_deep"),
        (b"[" * 65 + b"]" * 65, JSON, 400, "too_deep"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, JSON, 400, "too_deep"),
        (b'"' + b"x" * 40_000 + b'"', JSON, 413, "body_too_large"),
        (b"{}", {**JSON, "content-length": "9" * 30}, 413, "body_too_large"),
        (b"2", {"content-type": "text/plain"}, 415, "not_json"),
        (b"2", {}, 415, "not_json"),
        (b"number=2", {"content-type": "application/x-www-form-urlencoded"}, 415, "not_json"),
    ],
)
async def test_bodies_that_are_none_are_refused(body: bytes, headers: Any, status: int, code: str) -> None:
    async with asking(app_of(max_body_bytes=30_000)) as client:
        for path in ("/invoke/double", "/submit"):
            response = await client.post(path, content=body, headers=headers)
            assert (response.status_code, response.json()["code"]) == (status, code)
        assert (await client.post("/invoke/double", content=b" 2 ", headers=JSON)).json()["result"] == 4


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio warns of what httpx leaves of a body that was not taken
async def test_a_body_that_is_not_announced_is_counted() -> None:
    async def chunks(count: int) -> AsyncIterator[bytes]:
        for _ in range(count):
            yield b" " * 999 + b"1"

    async with asking(app_of(max_body_bytes=1_000)) as client:
        assert (await client.post("/invoke/double", content=chunks(2), headers=JSON)).status_code == 413
        assert (await client.post("/invoke/double", content=chunks(1), headers=JSON)).json()["result"] == 2


@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # trio warns of what httpx leaves of a body that was not taken
async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"2"
        await anyio.sleep_forever()

    async with asking(app_of(body_timeout=0.01)) as client:
        response = await client.post("/invoke/double", content=slow(), headers=JSON)
        assert (response.status_code, response.json()["code"]) == (408, "body_timeout")


async def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    async with asking(app_of(rate=0.01, burst=3)) as client:
        statuses = [(await client.get("/livez")).status_code for _ in range(5)]
        assert statuses == [200, 200, 200, 429, 429]
        response = await client.get("/livez")
        assert int(response.headers["retry-after"]) > 1
        assert response.json()["retryable"]


def test_the_rate_is_that_of_each_address_and_few_are_remembered() -> None:
    limit = RateLimit(2.0, 2)
    assert [limit.ask("a", 0.0) for _ in range(3)] == [0, 0, 1]
    assert limit.ask("b", 0.0) == 0
    assert [limit.ask("a", 0.5) for _ in range(2)] == [0, 1]
    assert [limit.ask("a", 100.0) for _ in range(3)] == [0, 0, 1]
    for number in range(2 * MOST_ADDRESSES):
        limit.ask(str(number), 100.0)
    assert len(limit._left) == MOST_ADDRESSES


async def test_a_request_keeps_a_good_id_and_gets_one_for_a_bad_one() -> None:
    async with asking(app_of()) as client:
        assert (await client.get("/livez", headers={"x-request-id": "abc-1"})).headers["x-request-id"] == "abc-1"
        for bad in ("a b", "x" * 65, "<script>"):
            response = await client.get("/nothing", headers={"x-request-id": bad})
            assert response.headers["x-request-id"] == response.json()["request_id"] != bad


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
async def test_a_method_that_a_route_has_not_is_refused(method: str) -> None:
    async with asking(app_of()) as client:
        response = await client.request(method, "/runs")
        assert response.status_code == 405
        assert msgspec.json.decode(response.content, type=Problem).code == "method_not_allowed"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=lost",
        "state=null",
        "limit=1&limit=1",
        "worker_name=a%20b",
        "after=",
        "surprise=1",
        "limit=" + "9" * 5000,
    ],
)
async def test_a_query_that_says_nothing_is_refused(query: str) -> None:
    async with asking(app_of()) as client:
        response = await client.get(f"/runs?{query}")
        assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    ("host", "token", "refused"),
    [
        ("127.0.0.1", None, False),
        ("127.8.9.1", None, False),
        ("::1", None, False),
        ("localhost", None, False),
        ("0.0.0.0", None, True),  # noqa: S104 - to be refused
        ("::", None, True),
        ("", None, True),
        ("192.168.0.1", None, True),
        ("localhost.evil.com", None, True),
        ("0.0.0.0", "token", False),  # noqa: S104 - to be allowed
    ],
)
def test_without_a_token_only_this_machine_may_reach_it(host: str, token: str | None, refused: bool) -> None:
    if refused:
        with pytest.raises(ValueError, match="without a token"):
            check_binding(host, token)
    else:
        check_binding(host, token)


@pytest.mark.parametrize(
    "settings",
    [
        {"token": ""},
        {"token": "a b"},
        {"token": "\u00fcber"},
        {"read_token": "x"},
        {"read_token": "x", "token": "x"},
        {"cors_origins": ("*",)},
        {"cors_origins": "https://a.example"},
        {"cors_origins": ("https://a.example/",)},
        {"cors_origins": ("https://*.example",)},
        {"cors_origins": ("a.example",)},
        {"cors_origins": ("file://x",)},
        {"allowed_hosts": "localhost"},
        {"allowed_hosts": ("localhost:80",)},
        {"allowed_hosts": ("a*",)},
        {"max_body_bytes": 0},
        {"rate": 0},
        {"burst": 0.5},
        {"send_timeout": float("nan")},
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        ServerSettings(**settings)


def test_a_setting_that_is_unknown_is_refused() -> None:
    with pytest.raises(TypeError, match="max_bodies"):
        serve(max_bodies=1)
