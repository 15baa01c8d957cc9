"""Faults planted in what is around jobs: runs and their stores, the client, the server, the command line."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, unit

RUNS = unit("unit/actors/runs/test_runs.py")
STEPS = unit("unit/actors/runs/test_run_store_steps.py")
FEEDS = unit("unit/actors/runs/test_run_readers.py")
CONTRACT = (*unit("contract/test_run_stores.py"), "-k", "memory")
SQLITE = (*unit("contract/test_run_stores.py"), "-k", "sqlite")
REDIS = (*unit("contract/test_run_stores.py"), "-k", "redis")
NATS = (*unit("contract/test_run_stores.py"), "-k", "nats")
COMMAND_LINE = unit("unit/actors/cli/test_command_line.py")
SETTINGS = unit("unit/actors/cli/test_settings.py")
TARGETS = unit("unit/actors/cli/test_targets.py")

OUTSIDE = (
    Mutant(
        "a lost owner is not refused",
        "actors/runs/stores/record.py",
        "if status.state is not RunState.RUNNING or status.attempts != lease.attempt:",
        "if status.state is not RunState.RUNNING:",
        CONTRACT,
    ),
    Mutant(
        "a run is taken under a lease that holds no more",
        "actors/runs/stores/ledger_store.py",
        "if status.state.terminal or lease_of(record) != lease:",
        "if status.state.terminal:",
        CONTRACT,
    ),
    Mutant(
        "a run that is to be cancelled completes",
        "actors/runs/stores/ledger_store.py",
        "if status.cancel_requested_at is not None and state in {RunState.COMPLETED, RunState.PENDING}:",
        "if state is RunState.PENDING:",
        STEPS,
    ),
    Mutant(
        "what a lost owner says is heard",
        "actors/runs/stores/event_log.py",
        "if event.attempt == attempt:",
        "if attempt:",
        STEPS,
    ),
    Mutant(
        "events are added behind the terminal one",
        "actors/runs/stores/event_log.py",
        "return None if RunEventType(_header(content)[0]).terminal else _offset(keys[0]) + 1, attempt",
        "return _offset(keys[0]) + 1, attempt",
        STEPS,
    ),
    Mutant(
        "an event that seemed lost is added twice",
        "actors/runs/stores/event_log.py",
        "                    adding.unsure[content] = offset, entry\n",
        "",
        STEPS,
    ),
    Mutant(
        "a terminal event that its owner did not add is missing",
        "actors/runs/stores/readers.py",
        "            await self._log.close(record)  # who ended it may have died before\n",
        "",
        STEPS,
    ),
    Mutant(
        "a run that is being deleted ends too early",
        "actors/runs/stores/readers.py",
        "                await self._record(status.run_id)",
        "                pass",
        STEPS,
    ),
    Mutant(
        "a terminal event is left of a run that was deleted",
        "actors/runs/stores/event_log.py",
        "                    await self._ledger.delete([event_key(run_id, offset)])\n",
        "                    pass\n",
        STEPS,
    ),
    Mutant(
        "a run is entered under a key that was just freed",
        "actors/runs/stores/entrance.py",
        "        if (await self._ledger.read([claim]))[0] == entry:\n            return entered\n",
        "        return entered\n",
        STEPS,
    ),
    Mutant(
        "a key is freed after its run is gone",
        "actors/runs/stores/entrance.py",
        "        await self._ledger.delete([run_key(run_id)])\n        for folder in",
        "        for folder in",
        STEPS,
    ),
    Mutant(
        "a run that ended stays among the open ones",
        "actors/runs/stores/ledger_store.py",
        "                await self._put_away(record)  # who ended it died before\n",
        "                pass\n",
        STEPS,
    ),
    Mutant(
        "what a lost owner writes into a run that was deleted stays",
        "actors/runs/stores/ledger_store.py",
        '        await self._ledger.put(over_key(run_id, self._clock() + ORPHAN_AGE), b"", 0)',
        "        pass",
        STEPS,
    ),
    Mutant(
        "nobody forgets runs whose time is over",
        "actors/runs/owner.py",
        '        self.create_task(self._sweep(), "sweep", vital=False)\n',
        "",
        RUNS,
    ),
    Mutant(
        "a run that one owner cannot read is not left to others",
        "actors/runs/owner.py",
        "now if lease.owner or run_id in self._unreadable",
        "now if lease.owner",
        RUNS,
    ),
    Mutant(
        "a run that is cancelled while its job is asked for goes on",
        "actors/runs/owner.py",
        "                if self._cancelled:  # while",
        "                if False:  # while",
        RUNS,
    ),
    Mutant(
        "a client that submits several at once opens several stores",
        "actors/client/client.py",
        "        async with self._opening:",
        "        if True:",
        RUNS,
    ),
    Mutant(
        "a run without a record is never swept",
        "actors/runs/stores/entrance.py",
        "                if record is None:\n                    await self.forget(run_id)\n",
        "                pass\n",
        STEPS,
    ),
    Mutant(
        "the key of a run that was never entered is taken for ever",
        "actors/runs/stores/entrance.py",
        "if run_id < stamp(self._clock() - ORPHAN_AGE / 2):",
        'if run_id < "":',
        STEPS,
    ),
    Mutant(
        "each reader of a run looks for itself",
        "actors/runs/stores/readers.py",
        "        feed = self._feeds.get(run_id)\n        if feed is None:",
        "        if True:",
        FEEDS,
    ),
    Mutant(
        "a feed begins behind all events",
        "actors/runs/stores/event_log.py",
        "        if after <= LAST_OFFSET and await self._ledger.read([event_key(run_id, after)]) != [None]:",
        "        if after <= LAST_OFFSET:",
        FEEDS,
    ),
    Mutant(
        "a slow reader misses what its feed forgot",
        "actors/runs/stores/readers.py",
        "        return offset >= self._first",
        "        return True",
        FEEDS,
    ),
    Mutant(
        "readers wait for one that has left",
        "actors/runs/stores/readers.py",
        "            self._looking = None\n            look.over.set()",
        "            self._looking = None",
        FEEDS,
    ),
    Mutant(
        "two processes replace one version",
        "actors/runs/stores/sqlite.py",
        "WHERE key = ?1 AND version = ?3",
        "WHERE key = ?1 AND ?3 > 0",
        SQLITE,
    ),
    Mutant(
        "redis replaces any version",
        "actors/runs/stores/redis.py",
        "if (now or '0') ~= ARGV[2] then return 0 end",
        "if (now or '0') == '-' then return 0 end",
        REDIS,
    ),
    Mutant(
        "nats replaces any version",
        "actors/runs/stores/nats.py",
        "_OTHER_VERSION) is not None",
        "0) is not None",
        NATS,
    ),
    Mutant(
        "secret settings are shown",
        "actors/cli/settings.py",
        'redacted(value) if name in URLS else "***"',
        "value",
        SETTINGS,
    ),
    Mutant(
        "what is wrong in the configuration file is ignored",
        "actors/cli/settings.py",
        "        if key not in known:",
        "        if not key:",
        SETTINGS,
    ),
    Mutant(
        "nobody is told where a bad value comes from",
        "actors/cli/failures.py",
        '.rstrip(".") + _origin(error)',
        '.rstrip(".")',
        COMMAND_LINE,
    ),
    Mutant(
        "text of others reaches the terminal as it is",
        "actors/cli/failures.py",
        "letter if letter.isprintable() else",
        "letter if letter else",
        COMMAND_LINE,
    ),
    Mutant(
        "a defect passes for bad usage",
        "actors/cli/failures.py",
        "else ExitCode.FAILED\n    return None",
        "else ExitCode.FAILED\n    return ExitCode.USAGE",
        COMMAND_LINE,
    ),
    Mutant(
        "a bus that ends with its process passes for a broker",
        "actors/cli/connection.py",
        "if not bus or urlsplit(bus).scheme == IN_MEMORY:",
        "if not bus:",
        COMMAND_LINE,
    ),
    Mutant(
        "two workers may have one name",
        "actors/cli/target.py",
        "        if other is not each:",
        "        if not other:",
        TARGETS,
    ),
    Mutant(
        "workers that a module has imported count as its own",
        "actors/cli/target.py",
        "_is_worker(value) and value.__module__ == module_name and",
        "_is_worker(value) and",
        TARGETS,
    ),
    Mutant(
        "a reader that has seen enough is a failure",
        "actors/cli/command.py",
        "        return ExitCode.OK\n    if isinstance(error, SystemExit)",
        "        return ExitCode.FAILED\n    if isinstance(error, SystemExit)",
        COMMAND_LINE,
    ),
    Mutant(
        "the jobs of a run do not say so",
        "actors/runs/owner.py",
        "run=self._lease.run_id):  # the tasks",
        "run=None):  # the tasks",
        unit("unit/actors/runs/test_runs.py"),
    ),
    Mutant(
        "the trace that a run was submitted in is lost",
        "actors/runs/runs.py",
        "trace_here() or Trace()",
        "Trace()",
        unit("unit/actors/runs/test_runs.py"),
    ),
    Mutant(
        "a run that is submitted again in another trace is another",
        "actors/runs/stores/entrance.py",
        "loads(kept) | _APART == loads(content) | _APART",
        "loads(kept) == loads(content)",
        unit("unit/actors/runs/test_runs.py"),
    ),
    Mutant(
        "a server counts jobs of a runner that it has left",
        "actors/server/service.py",
        "stack.callback(runner.remove_event_handler, event, self._count)",
        "pass",
        unit("unit/actors/server/test_server_streams.py"),
    ),
    Mutant(
        "a server does not say which job it is that something happens to",
        "actors/server/service.py",
        "FleetEvent(news.type, news.at, news.details())",
        "FleetEvent(news.type, news.at, {})",
        unit("unit/actors/server/test_server_streams.py"),
    ),
)
