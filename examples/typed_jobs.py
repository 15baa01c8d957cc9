"""Jobs with types: what a handler is given is checked before it runs. Run it: `python -m examples.typed_jobs`."""

from dataclasses import dataclass
from decimal import Decimal

import anyio
import msgspec

from actors import Backoff, BaseWorker, Client, JobError, RetryPolicy, WorkerRunner, job


class Item(msgspec.Struct):
    name: str
    price: Decimal
    count: int = 1


class Order(msgspec.Struct):
    customer: str
    items: list[Item]


@dataclass
class Receipt:  # a dataclass or a pydantic model travels as well
    customer: str
    total: Decimal


class Shop(BaseWorker):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failures = 2

    @job(name="order", sequential=True)  # one at a time, in the order asked
    async def order(self, order: Order) -> Receipt:
        return Receipt(order.customer, sum((item.price * item.count for item in order.items), Decimal()))

    @job(name="pay", retries=RetryPolicy(attempts=3, backoff=Backoff(first=0.01)))
    def pay(self, receipt: Receipt) -> str:  # a plain `def` runs in a thread: it may block
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the bank does not answer")
        return f"{receipt.customer} paid {receipt.total}"


async def main() -> None:
    async with WorkerRunner() as runner, Client(runner) as client:
        await runner.add_workers(Shop("shop"))

        order = Order("Ada", [Item("pen", Decimal("1.20"), count=3), Item("ink", Decimal("4.50"))])
        receipt = await client.request("shop", order, name="order")
        print(f"receipt: {receipt}")
        print(f"third time lucky: {await client.request('shop', receipt, name='pay')}")

        plain = {"customer": "Bob", "items": [{"name": "pen", "price": "1.20", "count": "many"}]}
        for name, payload in (("order", plain), ("ordr", order)):  # a dict will do, if it fits
            try:
                await client.request("shop", payload, name=name)
            except JobError as error:
                print(f"{error.status}: {error.error}")


if __name__ == "__main__":
    anyio.run(main)
