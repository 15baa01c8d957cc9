"""The server is asked whatever its document allows, and what it does not: it answers as it says, and never with 5xx."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from actors.server import serve
from tests.support.environment import environment
from tests.support.http import double, greet, listening
from tests.support.workers import Desk

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

EXAMPLES = 8
"""For each operation, besides those that its schema names."""


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_request_gets_an_answer_that_is_not_documented(tmp_path: Path) -> None:
    # No stream begins, as it would not end; a worker that nobody serves is soon given up.
    app = serve(
        workers=[Desk()],
        functions=[greet, double],
        max_streams=0,
        rate=1e6,
        burst=1_000_000,
        token="op",  # noqa: S106 - it opens nothing
        runner_options={"ready_timeout": 0.01},
    )
    async with listening(app) as client:
        options = ["--phases", "coverage,fuzzing", "--checks", "all", "--max-examples", str(EXAMPLES), "--seed", "1"]
        quietly = ["--warnings", "off", "--no-color", "--generation-database", "none", "--continue-on-failure"]
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"]
        result = await anyio.run_process(
            [*command, "--header", "Authorization: Bearer op", *options, *quietly],
            cwd=tmp_path,
            env=environment(),
            check=False,
        )
    output = result.stdout.decode()
    assert result.returncode == 0, output + result.stderr.decode()
    assert "passed" in output
