"""The planted faults still fit the code; `make mutants` proves that each is caught."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, Mutant
from tests.support.environment import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_a_mutant_replaces_stands_once_in_its_file(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1


def test_there_are_enough_of_them_with_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15
