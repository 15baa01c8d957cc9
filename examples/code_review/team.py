"""The team. Each worker does one kind of job; its signature says what it is given and what it answers."""

import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import msgspec

from actors import BaseWorker, Job, JobError, JobStatus, RunnerStateError, WorkerParams, job
from examples.code_review.review import KINDS, Review, advise, review

if TYPE_CHECKING:
    from examples.code_review.fleet import Fleet

REVIEWERS = ("reviewer-1", "reviewer-2", "reviewer-3", "reviewer-4")
SKIPPED = {"test", "tests", "idle_test", "site-packages", "dist-packages"}


class Files(msgspec.Struct):
    root: str
    paths: list[str] = []
    skipped: list[str] = []


class Report(msgspec.Struct):
    file: str
    root: str
    reviews: list[Review]
    advice: dict[str, str]
    losses: list[str]


class Scout(BaseWorker):
    @job(name="list")
    def list_files(self, root: str) -> Files:  # a plain `def` runs in a thread: nobody else waits for the disk
        files = Files(root)
        for folder, folders, names in os.walk(root, onerror=lambda error: files.skipped.append(str(error))):
            inside = Path(folder).relative_to(root)
            files.skipped += [str(inside / name) for name in sorted(SKIPPED.intersection(folders))]
            folders[:] = sorted(set(folders) - SKIPPED)
            found = [inside / name for name in sorted(names) if name.endswith(".py") and Path(folder, name).is_file()]
            files.paths += [str(path) for path in found if str(path).isprintable()]
            files.skipped += [str(path) for path in found if not str(path).isprintable()]
        return Files(root, files.paths, [path if path.isprintable() else ascii(path) for path in files.skipped])


class Reviewer(BaseWorker):
    @job(name="review")
    def review_files(self, files: Files) -> list[Review]:
        return [review(files.root, path) for path in files.paths]

    @job(name="advise")
    async def advise_on(self, files: Files) -> AsyncIterator[tuple[str, str]]:  # what it yields arrives as a stream
        for path in files.paths:
            yield path, await anyio.to_thread.run_sync(advise, files.root, path)


class Critic(BaseWorker):
    @job(name="criticise")
    async def criticise(self, files: Files, job: Job[Any]) -> dict[str, str]:
        shares = {name: Files(files.root, files.paths[n :: len(REVIEWERS)]) for n, name in enumerate(REVIEWERS)}
        advice = dict.fromkeys(files.paths, "")
        async with self.job_group(*shares, name="advise", payloads=shares, timeout=60) as group:
            async for event in group:
                if event.type == event.STREAM_DATA:
                    path, advice[path] = event.data
                    await job.update(f"{event.worker_name} looked again at {path}")
        return advice


class Editor(BaseWorker):
    @job(name="edit")
    async def edit(self, report: Report) -> AsyncIterator[str]:
        try:
            async with await anyio.open_file(report.file, "w", encoding="utf-8") as file:
                for section in sections(report):
                    await file.write(section)
                    yield section
        except OSError as error:  # what its requester can mend: no fault of this program, so no traceback
            raise JobError(f"cannot write {report.file}: {error.strerror}") from None


def sections(report: Report) -> Iterator[str]:
    advice = "".join(f"- {path}: {text}\n" for path, text in report.advice.items())
    yield f"# Review of {report.root}\n\n{len(report.reviews)} files, the worst first:\n\n{advice}"
    for kind in KINDS:
        found = [f"- {r.path}:{f.line} {f.text}\n" for r in report.reviews for f in r.findings if f.kind == kind]
        yield f"\n## {kind.capitalize()}s: {len(found)}\n\n{''.join(found)}"
    if report.losses:
        yield "\n".join(("\n## Lost on the way\n", *(f"- {loss}" for loss in report.losses), ""))


class Lead(BaseWorker):
    def __init__(self, root: str, file: str, done: Callable[[str], None], fleet: "Fleet | None" = None) -> None:
        super().__init__("lead")
        self.root, self.file, self.done, self.fleet = root, file, done, fleet
        self.reviews: list[Review] = []
        self.files, self.again, self.finished = 0, 0, False
        self.jobs_of = dict.fromkeys(("scout", *REVIEWERS, "critic", "editor"), 1)

    async def run(self, _params: WorkerParams) -> None:  # the others are its children, and end when it returns
        await self.start()
        hired = () if self.fleet else map(Reviewer, REVIEWERS)  # the reviewers of a fleet serve in other processes
        await self.add_workers(Scout("scout"), *hired, Critic("critic"), Editor("editor"))
        try:
            await self.lead()
            self.finished = True
        except* (JobError, RunnerStateError) as failed:  # a job failed, or it was Ctrl-C
            for error in failed.exceptions:
                if isinstance(error, JobError) and error.status != JobStatus.CANCELLED:
                    print(f"{error.worker_name}: {error.error}")

    async def lead(self) -> None:
        files: Files = await self.ask("scout", "list", self.root)
        self.files = len(files.paths)
        print(f"{self.files} files in {files.root}; skipped: {', '.join(files.skipped) or 'nothing'}")
        if self.fleet:
            self.fleet.expect(self.files)
        async with anyio.create_task_group() as tasks:
            for number, reviewer in enumerate(REVIEWERS):
                tasks.start_soon(self.keep_busy, reviewer, files.paths[number :: len(REVIEWERS)])
        self.reviews.sort(key=lambda review: (-len(review.findings), review.path))
        again = Files(files.root, [review.path for review in self.reviews[:12] if len(review.findings) > 1])
        advice = await self.ask("critic", "criticise", again)
        for reviewer in REVIEWERS:  # the critic has asked each of them
            self.done(reviewer)
        await self.ask("editor", "edit", Report(self.file, files.root, self.reviews, advice, self.losses))

    @property
    def losses(self) -> list[str]:
        missing = self.files - len(self.reviews)
        lost = self.fleet.lost if self.fleet else []
        return [*lost, f"reviews done again: {self.again}; missing: {missing} of {self.files}"] if lost else []

    async def keep_busy(self, reviewer: str, paths: list[str]) -> None:
        self.jobs_of[reviewer] += len(paths)
        with suppress(RunnerStateError):  # after Ctrl-C the runner takes no new jobs
            for path in paths:
                self.reviews += await self.ask(reviewer, "review", Files(self.root, [path]))

    async def ask(self, worker: str, name: str, payload: object) -> Any:
        async with self.job(worker, name=name, payload=payload) as asked:
            async for event in asked:
                if event.type == event.UPDATE:
                    print(event.data)
                elif event.type == event.STREAM_DATA:
                    print(*event.data.splitlines()[:8], sep="\n")
        self.again += asked.results[worker].attempt > 1
        self.done(worker)
        return asked.response
