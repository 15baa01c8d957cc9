"""The examples run as a user runs them, and say what they promise."""

from __future__ import annotations

import re
import sys

import pytest

from tests.compare_pipecat import PROGRAMS, play
from tests.house import FLOORS
from tests.support.environment import ROOT
from tests.support.processes import assert_says, run

EXAMPLES = sorted(path.stem for path in (ROOT / "examples").glob("*.py") if path.stem != "__init__")
DEMO = sorted((ROOT / "examples" / "code_review").glob("*.py"))

# What each example prints, in this order, with whatever between: patterns of whole lines.
SAYS = {
    "hello": ["Hello, world!", "HELLO, WORLD!"],
    "typed_jobs": [
        r"receipt: Receipt\(customer='Ada', total=Decimal\('8.10'\)\)",
        "third time lucky: Ada paid 8.10",
        r"failed: PayloadError: payload.items\[0\].count: expected int, got str",
        "error: HandlerError: no handler for job 'ordr' .*'order'",
    ],
    "fan_out": [
        "  alice thinks about 'why\\?'",
        "  carol failed: JobError: no idea",
        "whoever can: each outcome stands for itself",
        "  alice: completed .*",
        "  carol: error JobError: no idea",
        "  bob: 2 words, says bob",
    ],
    "streaming": [
        "stream_start *",
        "stream_data once",
        "stream_data time",
        "stream_end *",
        "read 1 chunk of 10000, and the storyteller waits: it has sent 25[56]",
        "read all of them: 10000",
        r"cancelled: JobCancelled: heard enough; the storyteller stopped at 1\d\d\d",
    ],
    "hand_over": [
        "reception takes over",
        "reception: welcome! You said 'hello'",
        "reception steps back",
        "billing takes over: Ada about an invoice",
        "billing: about 'it says 12 pens', let me see",
        "billing steps back",
        "reception takes over",
        "reception: welcome! You said 'hello again'",
    ],
    "supervision": [
        "station: sensor is up",
        "21.5 degrees, from life 1",
        "station: sensor failed: OSError: the cable is loose; restarting: True",
        "21.5 degrees, from life 2",
        "21.5 degrees, from life 3",
        "station: sensor failed: OSError: the cable is loose; restarting: False",
        "the station gave up",
    ],
    "sub_jobs": [
        "  flight: airline to Rome for 3 days",
        "  guide: guide to Rome for 3 days",
        "  hotel: this takes time, (60.0|59.*) s are left",
        "  cancelled: JobCancelled: too expensive",
        "out of time: .*",
        "  JobTimeoutError: timeout: no answer from 'agency' before the deadline",
    ],
}

# What each program in Pipecat's style prints, here and on Pipecat: exactly these lines.
PRINTS = {
    "library": [
        "atlas is ready",
        "almanac is ready",
        "atlas: searching for mountains",
        "atlas: {'found': 'rivers, mountains'}",
        "atlas: searching for tides",
        "almanac: searching for tides",
        "both: {'atlas': {'error': 'no tides'}, 'almanac': {'found': 'tides, rivers'}}",
        "atlas: searching for rivers",
        "almanac: searching for rivers",
        "the last one: {'atlas': {'found': 'rivers, mountains'}, 'almanac': {'found': 'tides, rivers'}}",
    ],
    "sensors": [
        "units: [('cellar', {'unit': 'C'}), ('kitchen', {'unit': 'C'})]",
        "degrees: [('cellar', {'degrees': 12.5}), ('kitchen', {'degrees': 22.0})]",
        "kitchen: stream_start {'readings': 3}",
        "kitchen: stream_data {'degrees': 21.0}",
        "kitchen: stream_data {'degrees': 21.5}",
        "kitchen: stream_data {'degrees': 22.0}",
        "kitchen: stream_end {'mean': 21.5}",
        "history: {'mean': 21.5}",
        "roof: JobError, {'reason': 'no reading'}",
        "cellar: {'still': 'watching'}",
        "cellar stops watching: it is morning",
        "cellar: cancelled, None",
    ],
    "coordinator": [
        "press starts the late shift",
        "job-1: update {'pages': 2}",
        "job-1: start None",
        "job-1: data {'page': 0}",
        "job-1: data {'page': 1}",
        "job-1: end {'printed': 2}",
        "job-2: failed {'reason': 'no thread'}",
        "job-3: update {'waits': True}",
        "job-3: cancelled None",
    ],
    "hand_over": [
        "host: expert is there",
        "host: asked for {'guest': 'Ada'}",
        "host: the end",
        "expert: takes over, {'metadata': {'guest': 'Ada', 'asks for': 'a map of the coast'}}",
        "expert: update {'text': 'let me think'}",
        "expert: {'last visit': 'in May'}",
        "expert: the end",
    ],
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_in_the_style_of_pipecat_prints_here_what_it_prints_there(name: str) -> None:
    assert play(name, sys.executable) == PRINTS[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_says_what_it_shows_and_ends(name: str) -> None:
    ended = run("-m", f"examples.{name}")
    assert ended.stderr == ""
    assert ended.returncode == 0
    assert_says(ended.stdout, SAYS[name])


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    text = (ROOT / "examples" / f"{name}.py").read_text()
    assert len(text.splitlines()) < 80
    assert f"`python -m examples.{name}`" in text


def test_the_demo_is_short() -> None:
    lines = {path.stem: len(path.read_text().splitlines()) for path in DEMO}
    assert lines.pop("fleet") < 150, "only starts processes and ends them"
    assert sum(lines.values()) < 300


def test_the_first_program_of_the_readme_runs() -> None:
    readme = (ROOT / "README.md").read_text()
    program, printed = re.findall(r"```(?:python|text)\n(.*?)```", readme, re.DOTALL)[:2]
    ended = run("-c", program)
    assert (ended.stdout, ended.stderr, ended.returncode) == (printed, "", 0)
    assert len(program.splitlines()) <= 15
    assert len(readme.splitlines()) <= 200


def test_the_readme_names_every_example_and_no_other() -> None:
    named = set(re.findall(r"`examples/(\w+)(?:\.py|/)`", (ROOT / "README.md").read_text()))
    assert named == {*EXAMPLES, "code_review", "fleet", "from_pipecat"}


def test_every_file_the_readme_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py|[\w/]+/|docs/[\w.-]+)`", (ROOT / "README.md").read_text())
    assert len(named) > 15
    for name in named:
        assert (ROOT / name).exists(), f"{name} is nowhere"


def test_the_page_about_the_architecture_names_every_room_and_every_file_it_names_is_there() -> None:
    rows = re.findall(r"^\| (`.*?) \| (.*) \|$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
    rooms = [(room, told) for place, told in rows for room in re.findall(r"`(?!tests/)([\w/]+)`", place)]
    assert {room.strip("/") for room, _ in rooms} == {
        room for floors in FLOORS.values() for rooms in floors for room in rooms
    }
    for room, told in rooms:
        folders = [ROOT / package / room for package in FLOORS if (ROOT / package / room).is_dir()]
        for name in re.findall(r"`(\w+)`", told) if folders else ():
            assert any((folder / f"{name}.py").exists() or name == "actorbus" for folder in folders), f"{room}{name}"
