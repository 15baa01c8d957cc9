"""What a worker process says of itself: its health, and its log."""

from __future__ import annotations

import json
import logging
import socket
import struct
import sys
import threading
import urllib.request
from http import HTTPStatus

import pytest

from actors.cli.failures import CommandError
from actors.cli.health import PATIENCE, Health, served
from actors.cli.output import formatter
from bus.log import log


def test_a_process_is_ready_once_it_serves() -> None:
    health = Health()
    assert health.answer("/livez")[0] is HTTPStatus.OK
    assert health.answer("/readyz")[0] is HTTPStatus.SERVICE_UNAVAILABLE
    health.ready = True
    assert health.answer("/readyz?verbose")[0] is health.answer("/health")[0] is HTTPStatus.OK
    assert health.answer("/metrics")[0] is HTTPStatus.NOT_FOUND


def test_a_process_whose_event_loop_is_stuck_is_neither_alive_nor_ready() -> None:
    times = [0.0]
    health = Health(lambda: times[-1])
    health.ready = True
    times.append(PATIENCE - 1)
    assert health.answer("/readyz")[0] is HTTPStatus.OK
    times.append(PATIENCE + 1)
    assert health.answer("/livez")[0] is health.answer("/readyz")[0] is HTTPStatus.SERVICE_UNAVAILABLE
    assert health.answer("/livez")[1]["alive"] is False


def test_health_is_told_over_http_and_a_port_that_is_taken_is_refused() -> None:
    with served(Health(), 0) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=30) as answer:
            assert json.load(answer)["alive"] is True
        with pytest.raises(CommandError, match="or 0 for a free one"), served(Health(), port):
            pass


def lines_of(form: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    logger = logging.getLogger("actorbus")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(form))
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    try:
        log().warning("something happened", worker="till", seconds=2)
        log().error("it failed", exc_info=RuntimeError("no paper"))
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates
    return capsys.readouterr().err.splitlines()


def test_a_line_of_the_log_is_a_json_object_with_its_fields(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = map(json.loads, lines_of("json", capsys))
    assert first.pop("at").endswith("Z")
    assert first == {
        "level": "warning",
        "logger": "actorbus",
        "event": "something happened",
        "worker": "till",
        "seconds": 2,
    }
    assert second["event"] == "it failed"
    assert "RuntimeError: no paper" in second["exception"]


def test_a_line_of_the_log_is_read_by_people(capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *rest = lines_of("text", capsys)
    assert first.endswith("Z warning something happened worker='till' seconds=2")
    assert second.endswith("Z error   it failed")
    assert rest[-1] == "RuntimeError: no paper"


def test_a_caller_that_hangs_up_leaves_no_trace_in_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    with served(Health(), 0) as port:
        with socket.create_connection(("127.0.0.1", port)) as caller:
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            caller.sendall(b"GET /livez HT")
        urllib.request.urlopen(f"http://127.0.0.1:{port}/livez", timeout=30).close()  # so the first was heard
        for thread in threading.enumerate():
            if "process_request" in thread.name:
                thread.join(30)
    assert capfd.readouterr().err == ""
