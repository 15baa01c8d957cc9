"""One worker that does one kind of job, and somebody who asks it. Run it: `python -m examples.hello`."""

import anyio

from actors import BaseWorker, Client, WorkerRunner, function, job


class Greeter(BaseWorker):
    @job
    async def greet(self, name: str) -> str:
        return f"Hello, {name}!"


@function()  # a worker without a class: it is asked by the name of the function
def shout(text: str) -> str:
    return text.upper()


async def main() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Greeter("greeter"), shout)
        greeting = await client.request("greeter", "world", name="greet")
        print(greeting)
        print(await client.request("shout", greeting))


if __name__ == "__main__":
    anyio.run(main)
