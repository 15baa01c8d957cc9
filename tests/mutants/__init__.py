"""A test of the tests: small faults are planted in copies of the code, and each must be caught.

`python -m tests.mutants` runs all; `python -m tests.mutants NAME` those with a name that contains it.
"""

from __future__ import annotations

from tests.mutants.jobs import JOBS
from tests.mutants.mutant import Mutant
from tests.mutants.network import BUS
from tests.mutants.outside import OUTSIDE

__all__ = ["MUTANTS", "Mutant"]

MUTANTS = (*BUS, *JOBS, *OUTSIDE)
