"""A quick look at each fault, with real processes and brokers; `make chaos` takes a long one."""

from __future__ import annotations

import pytest

from tests.chaos.play import play_on
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import KINDS

SEED = 1

QUICK = [scenario for scenario in SCENARIOS if scenario.quick is not None]


@pytest.mark.parametrize("scenario", QUICK, ids=lambda scenario: scenario.name.replace(" ", "_"))
def test_every_job_ends_once_whatever_happens(scenario: Scenario) -> None:
    assert scenario.quick is not None
    for played in play_on(KINDS, scenario, scenario.quick, SEED):
        assert not played.verdict.violations, "\n".join([played.kind, *played.verdict.violations, played.logs])
        assert played.verdict.lost == 0
        assert played.verdict.jobs > 0
