"""A job that answers bit by bit, no faster than its reader reads. Run it: `python -m examples.streaming`."""

from collections.abc import AsyncIterator

import anyio
import msgspec

from actors import BaseWorker, Client, Job, JobError, WorkerRunner, job


class Range(msgspec.Struct):
    count: int


class Storyteller(BaseWorker):
    told = 0

    @job(name="tell")
    async def tell(self, text: str) -> AsyncIterator[str]:  # each value it yields is a chunk
        for word in text.split():
            yield word

    @job(name="count")
    async def count(self, job: Job[Range]) -> int:  # the same by hand, with a value at the start and one at the end
        await job.stream_start("counting")
        for number in range(job.payload.count):
            await job.stream(number)
            self.told = number + 1
        return self.told


async def main() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        storyteller = Storyteller("storyteller")
        await runner.add_workers(storyteller)

        async with client.job("storyteller", name="tell", payload="once upon a time") as story:
            async for event in story:
                print(event.type, event.data if event.data is not None else "")

        async with client.job("storyteller", name="count", payload=Range(10_000)) as counting:
            async for event in counting:
                if event.data == 0:
                    await anyio.sleep(0.1)  # a slow reader
                    print(f"read 1 chunk of 10000, and the storyteller waits: it has sent {storyteller.told}")
        print(f"read all of them: {counting.response}")

        try:
            async with client.job("storyteller", name="count", payload=Range(1_000_000)) as counting:
                async for event in counting:
                    if event.data == 1000:
                        await counting.cancel("heard enough")
        except JobError as error:
            print(f"{error.status}: {error.error}; the storyteller stopped at {storyteller.told}")


if __name__ == "__main__":
    anyio.run(main)
