"""One question to several workers at once: a job group. Run it: `python -m examples.fan_out`."""

import anyio
import msgspec

from actors import BaseWorker, Job, JobError, JobGroupError, WorkerParams, WorkerRunner, job


class Question(msgspec.Struct):
    text: str


class Expert(BaseWorker):
    @job(name="answer")
    async def answer(self, job: Job[Question]) -> str:
        await job.update(f"thinks about {job.payload.text!r}")
        if self.name == "carol":
            raise JobError("no idea")
        return f"{len(job.payload.text.split())} words, says {self.name}"


class Chair(BaseWorker):
    async def run(self, _params: WorkerParams) -> None:
        await self.start()
        await self.everybody()
        await self.whoever_can()
        await self.each_its_own()
        await self.end()

    async def everybody(self) -> None:
        print("all must answer: the first failure ends the group")
        try:
            async with self.job_group("alice", "bob", "carol", name="answer", payload=Question("why?")) as group:
                async for event in group:
                    print(f"  {event.worker_name} {event.data}")
        except JobGroupError as error:
            print(f"  {error.worker_name} failed: {error.error}")

    async def whoever_can(self) -> None:
        print("whoever can: each outcome stands for itself")
        answered = await self.job_group(
            "alice", "bob", "carol", name="answer", payload=Question("why not?"), cancel_on_error=False
        )
        for name, result in answered.results.items():
            print(f"  {name}: {result.status} {result.response or result.error}")

    async def each_its_own(self) -> None:
        print("a question for each, and one deadline for all")
        questions = {"alice": Question("who are you?"), "bob": Question("and you?")}
        answered = await self.job_group(*questions, name="answer", payloads=questions, timeout=5)
        for name, answer in answered.responses.items():
            print(f"  {name}: {answer}")


async def main() -> None:
    runner = WorkerRunner()
    await runner.add_workers(Expert("alice"), Expert("bob"), Expert("carol"), Chair("chair"))
    await runner.run()


if __name__ == "__main__":
    anyio.run(main)
