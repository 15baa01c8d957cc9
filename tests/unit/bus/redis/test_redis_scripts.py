"""The steps of a Redis server: files beside the code, each of which says what it takes."""

from __future__ import annotations

import re
from importlib.resources import files

from bus.redis.layout import SCRIPTS

FILES = {file.name: file.read_text("utf-8") for file in files("bus.redis").joinpath("scripts").iterdir()}
SHARED = FILES.pop("shared.lua")


def test_every_step_is_loaded_with_what_the_steps_share() -> None:
    assert {script.text for script in SCRIPTS} == {SHARED + text for text in FILES.values()}
    assert len(SCRIPTS) == len(FILES) > 0


def test_every_step_opens_with_what_it_takes() -> None:
    for name, text in FILES.items():
        comment = re.match(r"(?:--.*\n)+", text)
        assert comment is not None, name
        assert re.findall(r"^-- (\w+): ", comment.group(), re.MULTILINE) == ["KEYS", "ARGV"], name
