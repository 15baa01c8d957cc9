"""The planted faults still fit the code; `make mutants` proves that each is caught."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.mutants import MUTANTS, Mutant
from tests.support.environment import ROOT


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_text_a_mutant_replaces_stands_once_in_its_file(mutant: Mutant) -> None:
    assert (ROOT / mutant.file).read_text().count(mutant.old) == 1


@pytest.mark.parametrize("check", {mutant.check: None for mutant in MUTANTS}, ids=" ".join)
def test_what_must_catch_a_mutant_is_there(check: tuple[str, ...]) -> None:
    """A path that is not there fails as well as a test does, and a mutant would count as caught."""
    module, *arguments = check
    assert find_spec(module) is not None
    tests = [argument for argument in arguments if argument.startswith("tests/")]
    assert [test for test in tests if not (ROOT / test).is_file()] == []
    assert tests or module.startswith("tests.")


def test_there_are_enough_of_them_with_names_of_their_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15
