"""Two workers, one conversation: only one of them is active, and hands over. Run it: `python -m examples.hand_over`."""

from typing import Any

import anyio

from actors import BaseWorker, Client, WorkerActivationArgs, WorkerRunner, job


class Handover(WorkerActivationArgs):
    caller: str = ""
    topic: str = ""


class Clerk(BaseWorker):
    async def on_activated(self, args: dict[str, Any] | None) -> None:
        print(f"{self.name} takes over" + (f": {args['caller']} about {args['topic']}" if args else ""))

    async def on_deactivated(self) -> None:
        print(f"{self.name} steps back")


class Reception(Clerk):
    @job(name="say")
    async def say(self, text: str) -> str:
        if "invoice" not in text:
            return f"reception: welcome! You said {text!r}"
        # First this one becomes inactive, then the other one active: never both. What is said meanwhile waits.
        await self.activate_worker("billing", args=Handover(caller="Ada", topic="an invoice"), deactivate_self=True)
        return "reception: let me put you through"


class Billing(Clerk):
    @job(name="say")
    async def say(self, text: str) -> str:
        if "bye" in text:
            await self.activate_worker("reception", deactivate_self=True)
            return "billing: goodbye"
        return f"billing: about {text!r}, let me see"


async def main() -> None:
    reception, billing = Reception("reception"), Billing("billing", active=False)
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(reception, billing)
        for text in ("hello", "my invoice is wrong", "it says 12 pens", "bye", "hello again"):
            listener = billing if billing.active else reception
            print(await client.request(listener.name, text, name="say", timeout=5))


if __name__ == "__main__":
    anyio.run(main)
