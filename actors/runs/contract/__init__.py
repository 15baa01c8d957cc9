"""The contract that every run store keeps, as checks that run from anybody's own tests.

```python
@pytest.mark.anyio
@pytest.mark.parametrize("check", RUN_STORE_CONTRACT, ids=lambda check: check.__name__)
async def test_my_run_store(check: RunStoreCheck) -> None:
    await check(my_stores)
```

`my_stores(count)` is an async context manager that makes an empty database and gives so many open stores on it, as so
many processes would have them. For a database that one process opens at a time it may give the same store again and
again. It closes them at the end, also those that are closed. Nothing is measured by a clock.
"""

from __future__ import annotations

from actors.runs.contract.owners import OWNER_CHECKS
from actors.runs.contract.records import RECORD_CHECKS
from actors.runs.contract.stored import MakeStores, RunStoreCheck
from actors.runs.contract.streams import STREAM_CHECKS

__all__ = ["RUN_STORE_CONTRACT", "MakeStores", "RunStoreCheck"]

RUN_STORE_CONTRACT: tuple[RunStoreCheck, ...] = (*RECORD_CHECKS, *OWNER_CHECKS, *STREAM_CHECKS)
"""Every check, to be run against every run store. Their names and docstrings are the contract in words."""
