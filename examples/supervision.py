"""Children that fail are made again, up to a limit. Run it: `python -m examples.supervision`."""

import logging

import anyio

from actors import Backoff, BaseWorker, Client, RestartPolicy, WorkerParams, WorkerRunner, job
from bus import WorkerErrorData, WorkerReadyData


class Sensor(BaseWorker):
    """Its `run` fails when it is told to break."""

    lives = 0

    def __init__(self) -> None:
        super().__init__("sensor")
        Sensor.lives += 1
        self.life = Sensor.lives
        self.broken = anyio.Event()

    async def run(self, _params: WorkerParams) -> None:
        await self.start()
        await self.broken.wait()
        raise OSError("the cable is loose")

    @job(name="read")
    async def read(self) -> str:
        return f"21.5 degrees, from life {self.life}"

    @job(name="break")
    async def break_it(self) -> None:
        self.broken.set()


class Station(BaseWorker):
    async def start(self) -> None:
        policy = RestartPolicy(strategy="one_for_one", max_restarts=2, period=60, backoff=Backoff(first=0.05))
        await super().start()
        await self.supervise(Sensor, restart=policy)  # what makes a sensor, not a sensor: it is made again

    async def on_worker_ready(self, data: WorkerReadyData) -> None:
        print(f"station: {data.worker_name} is up")

    async def on_worker_failed(self, data: WorkerErrorData) -> None:
        print(f"station: {data.worker_name} failed: {data.error}; restarting: {data.restarting}")


async def main() -> None:
    logging.getLogger("actorbus").setLevel(logging.CRITICAL)  # the runner logs failures too; here the station prints
    runner = WorkerRunner()
    async with runner, Client(runner) as client:
        station = Station("station")
        await runner.add_workers(station)
        for _ in range(3):
            print(await client.request("sensor", name="read", timeout=5))  # waits until a sensor is up
            await client.request("sensor", name="break")
        await station.wait()  # the third failure within a minute was one too many
        print("the station gave up")


if __name__ == "__main__":
    anyio.run(main)
