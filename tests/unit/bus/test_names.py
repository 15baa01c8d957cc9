"""Names: one rule, how one becomes part of a key, and what a mistyped one may have meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum

import pytest

from bus.errors import BusError, InvalidNameError
from bus.names import check_name, key_part, nearest


@pytest.mark.parametrize("name", ["a", "Worker_1", "a.b-c", "voice agent", " ", "a#b/c:d@e%f*>", "Größe 大", "x" * 128])
def test_a_name_of_printable_characters_is_returned(name: str) -> None:
    assert check_name("worker name", name) == name


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "a\n", "a\tb", "a\0", "\u2028", "\u00a0", "\ud800", "a\x7f", 5, None, b"a", ["a"]]
)
def test_any_other_name_is_refused_with_the_rule(name: object) -> None:
    with pytest.raises(InvalidNameError, match="use 1 to 128 printable characters") as caught:
        check_name("worker name", name)
    assert (caught.value.kind, caught.value.name) == ("worker name", name)
    assert isinstance(caught.value, BusError)


def test_a_name_from_an_enum_becomes_plain_text() -> None:
    class Name(StrEnum):
        SCOUT = "scout"

    assert type(check_name("worker name", Name.SCOUT)) is str


def test_names_are_parts_of_keys_one_to_one_and_old_ones_as_they_are() -> None:
    names = ["a", "a b", "a:b", "a%3Ab", "a*", "a/b", "a.b", "ä", "~"]
    assert len({key_part(name) for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_.~%-]+", key_part(name)) for name in names)
    assert key_part("Worker_1.b-c") == "Worker_1.b-c"


def test_the_nearest_names_come_best_first() -> None:
    assert nearest("sumarise", ["search", "summarise", "summary", "xyz"]) == ["summarise", "summary"]
    assert nearest("qqq", ["search"]) == []
    assert len(nearest("worker1", [f"worker{n}" for n in range(10)], limit=2)) == 2


def test_the_nearest_of_very_many_names_are_sought_among_the_first_thousand() -> None:
    drawn = 0

    def names() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield f"name{drawn}"

    assert nearest("name7", names())[0] == "name7"
    assert drawn == 1000
