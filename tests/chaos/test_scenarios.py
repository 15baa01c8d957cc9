"""A quick look at each fault, with real processes and brokers; `make chaos` takes a long one."""

from __future__ import annotations

import pytest

from tests.chaos.__main__ import play
from tests.chaos.scenarios import SCENARIOS, Scenario
from tests.chaos.stage import KINDS, Kind

SEED = 1

QUICK = [scenario for scenario in SCENARIOS if scenario.quick is not None]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", QUICK, ids=lambda scenario: scenario.name.replace(" ", "_"))
def test_every_job_ends_once_whatever_happens(scenario: Scenario, kind: Kind) -> None:
    assert scenario.quick is not None
    verdict, _, logs = play(scenario, kind, scenario.quick, SEED)
    assert not verdict.violations, "\n".join([*verdict.violations, logs])
    assert verdict.lost == 0
    assert verdict.jobs > 0
