"""Jobs that ask for jobs, and end together with them. Run it: `python -m examples.sub_jobs`."""

import anyio
import msgspec

from actors import BaseWorker, Client, Job, JobError, WorkerRunner, job


class Trip(msgspec.Struct):
    to: str
    days: int


class Agency(BaseWorker):
    @job(name="plan")
    async def plan(self, trip: Trip) -> dict[str, str]:
        flight = await self.job("airline", name="book", payload=trip)  # a sub-job: it never outlives this one
        async with self.job_group("hotel", "guide", name="book", payload=trip) as group:
            pass
        return {"flight": flight, **group.responses}


class Office(BaseWorker):
    @job(name="book")
    async def book(self, job: Job[Trip]) -> str:
        trip = job.payload
        if trip.to == "the moon" and self.name != "airline":
            print(f"  {self.name}: this takes time, {job.remaining or 0:.1f} s are left")
            try:
                await anyio.sleep_forever()
            finally:
                print(f"  {self.name}: cancelled")
        return f"{self.name} to {trip.to} for {trip.days} days"


async def main() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Agency("agency"), Office("airline"), Office("hotel"), Office("guide"))

        print("a job made of jobs")
        for name, answer in (await client.request("agency", Trip("Rome", 3), name="plan")).items():
            print(f"  {name}: {answer}")

        print("cancelled by who asked: all that it asked for is cancelled as well")
        try:
            async with client.job("agency", name="plan", payload=Trip("the moon", 8), timeout=60) as trip:
                await anyio.sleep(0.1)
                await trip.cancel("too expensive")
        except JobError as error:
            print(f"  {error.status}: {error.error}")
        await anyio.sleep(0.1)

        print("out of time: the deadline is that of the outermost job")
        try:
            await client.request("agency", Trip("the moon", 8), name="plan", timeout=0.2)
        except JobError as error:
            print(f"  {error.error}")
        await anyio.sleep(0.1)


if __name__ == "__main__":
    anyio.run(main)
