"""What a bus says of its connection while a real broker is killed and started again."""

from __future__ import annotations

import anyio
import anyio.to_thread
import pytest

from bus import open_bus
from bus.brokers import Broker
from bus.network.bus import NetworkBus
from tests.integration.programs.fleet_worker import QUICK

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"])]

LONGEST_WAIT = 60.0
KILLS = 3


async def test_g37_each_change_of_the_connection_is_told_once_and_in_turn(each_broker: Broker) -> None:
    bus = open_bus(each_broker.url, **QUICK)
    assert isinstance(bus, NetworkBus)
    told: list[bool] = []
    changed = [anyio.Event() for _ in range(2 * KILLS + 1)]

    @bus.event_handler("on_connected")
    async def on_connected(source: NetworkBus) -> None:
        await anyio.lowlevel.checkpoint()
        told.append(True)
        changed[len(told) - 1].set()

    @bus.event_handler("on_disconnected")
    def on_disconnected(source: NetworkBus) -> None:
        told.append(False)
        changed[len(told) - 1].set()

    with anyio.fail_after(LONGEST_WAIT):
        async with bus:
            await changed[0].wait()
            assert bus.network_statistics().connection.last_error == ""
            for kill in range(KILLS):
                await anyio.to_thread.run_sync(each_broker.kill)
                await changed[2 * kill + 1].wait()
                away = bus.network_statistics().connection
                assert not away.connected
                assert away.last_error
                await anyio.to_thread.run_sync(each_broker.start)
                await changed[2 * kill + 2].wait()
                back = bus.network_statistics().connection
                assert back.connected
                assert back.reconnects == kill + 1
    assert told == [True, *[False, True] * KILLS], "and its own end is no event"
