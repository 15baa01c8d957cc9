"""The demo on trees of many kinds, in a pipe and on a terminal, to its end and interrupted."""

from __future__ import annotations

import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGTERM, Signals

import pytest

from bus.brokers import BROKERS, Broker, RedisBroker
from tests.support.environment import ROOT, environment
from tests.support.processes import DEADLINE, TAKEN, assert_says, run, started, wait_for_its_end

FUNCTIONS = "".join(f"def function_{number}(a):\n    return [b for b in a if b]\n\n\n" for number in range(30))

STARVED = re.compile(
    r"the event loop has been blocked for .*\n(?:  .*\n)* +.*\.poll\(timeout, max_ev\)\n"
    r"(?:the event loop runs again; .*\n)?"
)
"""What a process says whose loop stands where it waits: nothing blocks it, it has too little of a busy machine."""

LEFT_BEHIND = re.compile(r"threads left behind: .* handlers=\{'reviewer-\d\.review_files': \d+\}\n")
"""What a reviewer says that is stopped while a plain handler reviews: nobody can stop a thread."""


def table(output: str) -> tuple[int, int, int]:
    """Files, findings and jobs of the table at the end."""
    head, row = output.rstrip().splitlines()[-2:]
    assert head.split() == ["files", "findings", "jobs", "seconds"], output
    files, findings, jobs, seconds = row.split()
    assert float(seconds) >= 0
    return int(files), int(findings), int(jobs)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small source tree with one finding of each kind, in a folder with a space."""
    root = tmp_path / "source tree"
    files = {
        "good.py": '"""A module."""\n',
        "broken.py": "def f(:\n",
        "null.py": "x = '\0'\n",
        "deep.py": "x = " + " + ".join("1" * 20000) + "\n",
        "dangers.py": "import os, sys\n\n\ndef run(text):\n    eval(text)\n    os.system(text)\n",
        "knots/complex.py": "def knot(a):\n" + "    if a: return 1\n" * 11,
        "knots/escapes.py": 'x = "\\d"\n',
        "knots/tests/skipped.py": "def f(:\n",
        "knots/__init__.py": "import os\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "dangling.py").symlink_to(root / "nothing.py")
    (root / "folder.py").mkdir()
    os.mkfifo(root / "pipe.py")
    Path(os.fsdecode(os.fsencode(root) + b"/na\xefve.py")).write_text("x = 1\n")
    return root


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More files than are reviewed before a signal arrives; nobody changes them."""
    return folder_of(2000, tmp_path_factory.mktemp("large"))


def folder_of(count: int, root: Path) -> Path:
    for number in range(count):
        (root / f"module_{number}.py").write_text(FUNCTIONS)
    return root


def demo(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    ended = run("-m", "examples.code_review", *map(str, arguments), cwd=cwd)
    assert "Traceback" not in ended.stderr
    ended.stderr = STARVED.sub("", ended.stderr)
    return ended


def test_the_demo_finds_what_there_is(tree: Path, tmp_path: Path) -> None:
    ended = demo(tree, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert table(ended.stdout) == (8, 9, 8 + 1 + 1 + 4 + 1)
    assert_says(
        ended.stdout, [r"8 files in .*source tree; skipped: 'na\\udcefve.py', knots/tests", "## Unreadable.*: 3"]
    )
    report = (tmp_path / "code_review.md").read_text()
    assert_says(
        report,
        [
            "# Review of .*source tree",
            "- dangers.py: begin with run in line 4",
            "## Unreadable files: 3",
            "- broken.py:1 .*",
            "- deep.py:1 .*",
            "- null.py:.*null bytes.*",
            "## Dangerous calls: 2",
            "- dangers.py:5 eval",
            "- dangers.py:6 os.system",
            "## Complex functions: 1",
            "- knots/complex.py:1 knot has 11 branches",
            "## Dead imports: 1",
            "- dangers.py:1 sys",
            "## Missing docstrings: 2",
        ],
    )


def test_the_demo_writes_the_same_report_again(tree: Path, tmp_path: Path) -> None:
    reports = [tmp_path / "one.md", tmp_path / "two words.md"]
    for report in reports:
        assert demo(tree, "--report", report, cwd=tmp_path).returncode == 0
    assert reports[0].read_bytes() == reports[1].read_bytes()


def test_the_demo_of_an_empty_folder_finds_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    ended = demo("empty", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert table(ended.stdout)[:2] == (0, 0)


@pytest.fixture
def as_a_user() -> list[str]:
    """What runs a program for which modes of files count: root's, too, without the right to read all there is."""
    if os.geteuid() != 0:
        return []
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--"]
    try:
        subprocess.run([*command, "true"], env=environment(), check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing is unreadable for root, who cannot give up that right here")
    return command


def test_what_the_demo_may_not_read_is_a_finding(as_a_user: list[str], tree: Path, tmp_path: Path) -> None:
    (tree / "good.py").chmod(0)
    (tree / "knots").chmod(0)
    command = [*as_a_user, sys.executable, "-W", "error", "-m", "examples.code_review", str(tree)]
    try:
        ended = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
        )
    finally:
        (tree / "knots").chmod(0o700)
    assert (ended.returncode, STARVED.sub("", ended.stderr)) == (0, "")
    skipped = r"5 files in .*source tree; skipped: .*, \[Errno 13\] Permission denied: '.*source tree/knots'"
    assert_says(ended.stdout, [skipped])
    assert "- good.py:1 Permission denied" in (tmp_path / "code_review.md").read_text()


@pytest.mark.parametrize("arguments", [["missing"], ["missing/file.py"], [".", "--report", "missing/report.md"]])
def test_the_demo_refuses_a_path_that_is_not_there(arguments: list[str], tmp_path: Path) -> None:
    ended = demo(*arguments, cwd=tmp_path)
    assert ended.returncode == 2
    assert re.search(r"error: not a directory: .*missing", ended.stderr)


THREADS = """
import gc, sys, threading
from examples.code_review.review import review
gc.callbacks.append(lambda *_: [None for _ in range(3000)])  # as finalizers do: another thread has its turn
said = []
def work():
    for _ in range(3):
        said.append(len(review(*sys.argv[1:]).findings))
threads = [threading.Thread(target=work) for _ in range(8)]
for each in threads:
    each.start()
for each in threads:
    each.join()
print(said)
"""


def test_many_threads_review_at_once(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text(FUNCTIONS * 20)
    ended = run("-c", THREADS, str(tmp_path), "many.py")
    assert (ended.stdout, ended.stderr) == (f"{[600] * 24}\n", "")


def test_a_report_that_cannot_be_written_is_told_without_a_traceback(tree: Path, tmp_path: Path) -> None:
    ended = demo(tree, "--report", tmp_path, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (1, "")
    told = ["editor: JobError: cannot write .*: Is a directory", "Stopped before the end. Done so far:"]
    assert_says(ended.stdout, told)
    assert table(ended.stdout)[:2] == (8, 9)


def test_the_demo_ends_when_nobody_reads_its_output(large_tree: Path, tmp_path: Path) -> None:
    with reviewing(large_tree, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert "2000 files" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode != 0


def test_sigint_ends_the_demo_cleanly_and_it_says_what_was_done(large_tree: Path, tmp_path: Path) -> None:
    with reviewing(large_tree, cwd=tmp_path) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "50 of 501 jobs done" in line:
                os.killpg(process.pid, SIGINT)
                break
        output = "".join(lines) + process.stdout.read()
        assert process.stderr is not None
        assert TAKEN.fullmatch(process.stderr.read())
    assert process.returncode == 1
    assert "Stopped before the end. Done so far:" in output
    files, findings, jobs = table(output)
    assert 50 <= files < 2000
    assert findings == 30 * files
    assert jobs == files + 1
    assert not (tmp_path / "code_review.md").exists()


def test_the_demo_on_a_terminal_shows_a_bar_per_worker(tree: Path, tmp_path: Path) -> None:
    returncode, output = on_terminal(tree, cwd=tmp_path)
    assert returncode == 0
    assert "Traceback" not in output
    for worker in ("scout", "reviewer-1", "reviewer-4", "critic", "editor"):
        assert re.search(rf"{worker} +\S*━+\S* \S*100%", output), worker
    assert table(output)[:2] == (8, 9)


def test_sigint_on_a_terminal_ends_the_bars_and_shows_the_table(large_tree: Path, tmp_path: Path) -> None:
    returncode, output = on_terminal(large_tree, cwd=tmp_path, interrupt_at=r"reviewer-1 .*%")
    assert returncode == 1
    assert "Traceback" not in output
    assert output.rindex("\x1b[?25h") > output.rindex("━"), "the cursor is hidden still"
    assert "Stopped before the end. Done so far:" in output
    assert 0 < table(output)[0] < 2000


def test_without_rich_a_terminal_gets_plain_lines(tmp_path: Path) -> None:
    tree = folder_of(240, tmp_path)
    without = (
        "import runpy, sys; sys.modules['rich'] = None; sys.argv[0] = 'demo'; runpy.run_module('examples.code_review')"
    )
    returncode, output = on_terminal(tree, cwd=tmp_path, command=("-c", without))
    assert returncode == 0
    assert "━" not in output
    assert "reviewer-1: 50 of 61 jobs done" in output
    assert table(output)[0] == 240


# --- on a fleet ---


@pytest.fixture
def slow_tree(tmp_path: Path) -> Path:
    """Few files, each of which takes long enough that whoever is killed as it begins one has it in hand."""
    root = tmp_path / "slow"
    root.mkdir()
    for number in range(6):
        (root / f"module_{number}.py").write_text(FUNCTIONS * 40)
    return root


@pytest.mark.parametrize("bus", BROKERS)
def test_the_demo_on_a_fleet_writes_the_same_report(bus: str, tree: Path, tmp_path: Path) -> None:
    assert demo(tree, cwd=tmp_path).returncode == 0
    ended = demo(tree, "--bus", bus, "--workers", "2", "--report", "fleet.md", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert_says(ended.stdout, [rf"the bus is {bus}://127.0.0.1:\d+", r"reviewer process 2 of 2 \(pid \d+\) started"])
    assert table(ended.stdout) == (8, 9, 8 + 1 + 1 + 4 + 1)
    assert (tmp_path / "fleet.md").read_bytes() == (tmp_path / "code_review.md").read_bytes()


@pytest.mark.parametrize("bus", BROKERS)
@pytest.mark.parametrize("size", [1, 3])
def test_g33_the_report_is_complete_although_a_reviewer_process_is_killed(
    bus: str, size: int, slow_tree: Path, tmp_path: Path
) -> None:
    assert demo(slow_tree, cwd=tmp_path).returncode == 0
    ended = demo(slow_tree, "--bus", bus, "--workers", size, "--kill", "--report", "fleet.md", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    killed = rf"reviewer process \d of {size} \(pid \d+\) was killed by SIGKILL"
    again = r"reviews done again: [1-4]; missing: 0 of 6"
    replaced = ["no reviewer process is left: another one takes its place"] if size == 1 else []
    assert_says(ended.stdout, [killed, *replaced, "## Lost on the way", f"- {killed}", f"- {again}", killed, again])
    assert table(ended.stdout) == (6, 6 * 1200, 6 + 1 + 1 + 4 + 1)
    report, _, lost = (tmp_path / "fleet.md").read_text().partition("\n## Lost on the way\n")
    assert report == (tmp_path / "code_review.md").read_text()
    assert re.fullmatch(rf"\n- {killed}\n- {again}\n", lost)


def test_the_demo_uses_a_broker_that_is_there_and_does_not_show_its_password(
    each_broker: Broker, tree: Path, tmp_path: Path
) -> None:
    url = each_broker.url.replace("//", "//nobody:secret@")
    if isinstance(each_broker, RedisBroker):
        url = each_broker.url.replace("//", "//:@")  # it has no users
    ended = demo(tree, "--bus", url, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert f"the bus is {each_broker.url}\n" in ended.stdout
    assert "secret" not in ended.stdout
    assert "reviewer process 3 of 3" in ended.stdout
    assert table(ended.stdout)[:2] == (8, 9)


def test_who_is_killed_by_somebody_else_is_told_of_too(large_tree: Path, tmp_path: Path) -> None:
    with reviewing(large_tree, "--bus", "redis", cwd=tmp_path) as process:
        _, pids = fleet_of(process)
        assert process.stdout is not None
        assert any(": 50 of 501 jobs done" in line for line in process.stdout)
        os.kill(pids[1], SIGKILL)
        line = next(line for line in process.stdout if "was killed" in line)
        assert line == f"reviewer process 2 of 3 (pid {pids[1]}) was killed by SIGKILL\n"
        os.killpg(process.pid, SIGINT)
        assert process.stdout.read()


@pytest.mark.parametrize("bus", BROKERS)
@pytest.mark.parametrize("how", [SIGINT, SIGTERM, SIGKILL])
def test_a_fleet_ends_with_its_demo_whatever_that_one_dies_of(
    bus: str, how: Signals, large_tree: Path, tmp_path: Path
) -> None:
    with reviewing(large_tree, "--bus", bus, cwd=tmp_path) as process:
        port, pids = fleet_of(process)
        assert len(pids) == 3
        with socket.create_connection(("127.0.0.1", port)) as link:
            assert process.stdout is not None
            assert any("50 of 501 jobs done" in line for line in process.stdout)
            os.killpg(process.pid, how)
            output = process.stdout.read()
            assert process.stderr is not None
            warnings = process.stderr.read()  # at its end when the reviewers have ended: they write to it, too
            wait_for_its_end(link)
    assert process.returncode == (-SIGKILL if how is SIGKILL else 1)
    if how is not SIGKILL:
        assert TAKEN.search(warnings)
        assert TAKEN.sub("", LEFT_BEHIND.sub("", STARVED.sub("", warnings))) == ""
        assert "Stopped before the end. Done so far:" in output
        assert 0 < table(output)[0] < 2000


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--bus", "foo"], r"BUS \(--bus\) must be redis, nats or the URL of a broker, .* not 'foo'"),
        (["--bus", "reddis://a:secret@b"], r"BUS \(--bus\) must be redis, .* not 'reddis'"),
        (["--bus", "memory://a"], r"BUS \(--bus\) must be redis, .* not 'memory'"),
        (["--bus", "redis://a:b"], "'redis://a:.*' is not the URL of a server.*"),
        (["--bus", "redis", "--workers", "0"], r"WORKERS \(--workers\) must be a number from 1 to 32, not '0'"),
        (["--bus", "redis", "--workers", "33"], r"WORKERS \(--workers\) must be a number from 1 to 32, not '33'"),
        (["--bus", "redis", "--workers", "few"], r"WORKERS \(--workers\) must be a number from 1 to 32, not 'few'"),
        (["--kill"], r"WORKERS and KILL are of a fleet: add BUS=redis or BUS=nats \(--bus\)"),
        (["--workers", "3"], r"WORKERS and KILL are of a fleet: add BUS=redis or BUS=nats \(--bus\)"),
    ],
)
def test_the_demo_says_what_is_wrong_with_its_arguments(arguments: list[str], told: str, tmp_path: Path) -> None:
    ended = demo(".", *arguments, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(f"python -m examples.code_review: error: {told}", ended.stderr.splitlines()[-1])


@pytest.mark.parametrize("outer", ["w", " -j2 --jobserver-auth=3,4", "s", "n -- ARGS=-x", "-- BUS=nats"])
def test_make_demo_passes_on_what_it_is_given(outer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a make is told within which the tests run."""
    for name, value in (("MAKEFLAGS", outer), ("MFLAGS", outer), ("MAKELEVEL", "1"), ("ARGS", "-x"), ("KILL", "0")):
        monkeypatch.setenv(name, value)
    command = ["make", "-n", "demo", "BUS=redis", "WORKERS=3", "KILL=1", "SOURCE=my tree"]
    said = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True).stdout
    told = said.replace("\\\n", " ").splitlines()[-1].split()
    assert told[1:] == ["-m", "examples.code_review", "--bus", "'redis'", "--workers", "'3'", "--kill", "'my", "tree'"]


def fleet_of(process: subprocess.Popen[str]) -> tuple[int, list[int]]:
    """The port of the broker and the processes, as the demo tells."""
    assert process.stdout is not None
    pids: list[int] = []
    port = int(process.stdout.readline().rpartition(":")[2])
    while len(pids) < 3:
        found = re.fullmatch(r"reviewer process \d of 3 \(pid (\d+)\) started\n", process.stdout.readline())
        assert found is not None
        pids.append(int(found[1]))
    return port, pids


@contextmanager
def reviewing(*arguments: object, cwd: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo as a shell starts it; it ends by itself."""
    with started([sys.executable, "-m", "examples.code_review", *map(str, arguments)], cwd=cwd) as process:
        yield process
        process.wait(DEADLINE)


def on_terminal(
    *arguments: object, cwd: Path, command: tuple[str, ...] = ("-m", "examples.code_review"), interrupt_at: str = ""
) -> tuple[int, str]:
    """Run the demo on a pseudo-terminal; its return code, and all that it showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, *command, *map(str, arguments)],
        cwd=cwd,
        env=environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := read(ours):
            shown += chunk
            if interrupt_at and re.search(interrupt_at, shown.decode(errors="replace")):
                interrupt_at = ""
                os.killpg(process.pid, SIGINT)
        return process.wait(DEADLINE), shown.decode(errors="replace").replace("\r\n", "\n")
    finally:
        os.close(ours)
        process.kill()
        process.wait()


def read(terminal: int) -> bytes:
    """What is there; nothing when the other side is closed, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""
