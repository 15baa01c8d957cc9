"""A test of the tests: small faults are planted in copies of the code, and each must be caught.

`python -m tests.mutants` runs all; `python -m tests.mutants NAME` one.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from tests.support.environment import ROOT, environment

SIMULATION = ("tests.simulation", "--seeds", "60", "--processes", "1")
TIMEOUT = 300


class Mutant(msgspec.Struct, frozen=True):
    """One planted fault.

    Attributes:
        name: What is broken.
        file: Where.
        old: The text that is replaced; stands once in the file.
        new: What replaces it.
        check: Arguments of `python -m` that must fail on it.
    """

    name: str
    file: str
    old: str
    new: str
    check: tuple[str, ...]


def unit(*tests: str) -> tuple[str, ...]:
    """A check by unit tests, stopping at the first that fails."""
    return ("pytest", "-q", "-x", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests))


FLEET = unit("simulation/test_fleet.py")
FAULTS = unit("simulation/test_broken_fleet.py")
BOUNDS = unit("simulation/test_fleet_bounds.py")
DIRECT = unit("simulation/test_direct.py")
RUNS = unit("unit/actors/runs/test_runs.py")
STEPS = unit("unit/actors/runs/test_run_store_steps.py")
FEEDS = unit("unit/actors/runs/test_run_readers.py")
CONTRACT = (*unit("contract/test_run_stores.py"), "-k", "memory")
SQLITE = (*unit("contract/test_run_stores.py"), "-k", "sqlite")
REDIS = (*unit("contract/test_run_stores.py"), "-k", "redis")
NATS = (*unit("contract/test_run_stores.py"), "-k", "nats")
COMMAND_LINE = unit("unit/actors/cli/test_command_line.py")
ERRORS = unit("unit/actors/jobs/test_errors.py")
TEXTS = unit("unit/actors/jobs/test_texts.py")
FORGOTTEN = unit("unit/actors/requester/test_forgotten_jobs.py")
EVENTS = unit("unit/actors/worker/test_events.py")
ACCEPTED = unit("unit/actors/worker/test_accepted_messages.py")
OBSERVERS = unit("unit/bus/local/test_observers.py")

MUTANTS = (
    Mutant(
        "no fencing: answers of older attempts count",
        "actors/requester/flow.py",
        "elif message.attempt < self.attempt or message.origin in self.former:",
        "elif message.origin in self.former:",
        FAULTS,
    ),
    Mutant(
        "a paused process answers although its lease is over",
        "bus/delivery/leases.py",
        "if claim is not None and leased and self._node.tasks.now() >= claim.renewed + self._transport.ack_wait:",
        "if False:",
        FAULTS,
    ),
    Mutant(
        "a claim is taken over by its age, although its owner renews it",
        "bus/memory/queues.py",
        "                entry.lease_end = now + self._ack_wait\n                self._claims.move_to_end(entry)\n",
        "                pass\n",
        FLEET,
    ),
    Mutant(
        "leases of jobs that have been answered are not renewed until the network knows",
        "bus/delivery/leases.py",
        "[*self.claims.all(), *self.claims.ending, *self._outbox.settling]",
        "list(self.claims.all())",
        FAULTS,
    ),
    Mutant(
        "nobody is told that the network has lost what it had stored",
        "bus/delivery/leases.py",
        "self._node.tell_runners(BusDataLostMessage(source=self._node.registry.runner_name))",
        "pass",
        FAULTS,
    ),
    Mutant(
        "what was given up while nobody served its name runs when somebody comes",
        "bus/delivery/leases.py",
        "elif request.origin == self._node.address or self.informed.covers(request.origin, name, frame_id):",
        "elif True:",
        unit("simulation/test_given_up.py"),
    ),
    Mutant(
        "of cancellations that are forgotten nobody is asked",
        "bus/delivery/leases.py",
        "self.informed.forget(runner=forgotten[1], worker=forgotten[0])",
        "pass",
        unit("simulation/test_given_up.py"),
    ),
    Mutant(
        "a job id that is used anew gets the answer of the old job",
        "bus/delivery/claims.py",
        "return answer if answered == frame_id else None",
        "return answer",
        unit("simulation/test_given_up.py"),
    ),
    Mutant(
        "a silent runner counts as dead without having been asked",
        "bus/membership/membership.py",
        "for peer in self.liveness.doubtful(now):",
        "for peer in ():",
        BOUNDS,
    ),
    Mutant(
        "the first part of a list counts as the whole",
        "bus/membership/membership.py",
        "if len(parts) < count:",
        "if False:",
        BOUNDS,
    ),
    Mutant(
        "messages that nobody asked for wait without a bound",
        "bus/network/inbox.py",
        "if room is not None and room.taken < room.capacity + EXCESS:",
        "if room is not None:",
        BOUNDS,
    ),
    Mutant(
        "a full inbox holds up the frames for others",
        "bus/memory/broker.py",
        "                    full[place] = error\n",
        "                    raise\n",
        BOUNDS,
    ),
    Mutant(
        "acknowledged before it has run",
        "bus/delivery/leases.py",
        "        claim = self.claims.hold(request, delivery, frame_id, since, now)\n",
        "        claim = self.claims.hold(request, delivery, frame_id, since, now)\n"
        "        self.settle(delivery, Settlement.ACK, now)\n",
        FLEET,
    ),
    Mutant(
        "leases are never renewed",
        "bus/delivery/leases.py",
        "renewed = await self._transport.extend([lease.delivery for lease in leases if lease.delivery])",
        "renewed = [True for lease in leases]",
        FLEET,
    ),
    Mutant(
        "a request that comes again runs again",
        "bus/delivery/claims.py",
        "        if answer is not None:\n            self._answers[key] = ",
        "        if False:\n            self._answers[key] = ",
        FLEET,
    ),
    Mutant(
        "a retried frame gets a new id",
        "bus/transport/outbox.py",
        "await self._transport.send(frames)",
        "self._failures += 1\n"
        "            await self._transport.send("
        '[replace(frame, id=f"{frame.id}-{self._failures}") for frame in frames])',
        FLEET,
    ),
    Mutant(
        "who has lost its lease goes on",
        "bus/delivery/leases.py",
        'self._stop(claim, "its lease was lost: another worker has it, or will")',
        "pass",
        FLEET,
    ),
    Mutant(
        "who has lost its lease still answers",
        "bus/delivery/leases.py",
        "        if claim is None:  # its lease was lost: somebody else answers\n            return\n",
        "        if claim is None:\n            self._node.send_to(message.destination, message)\n            return\n",
        FLEET,
    ),
    Mutant(
        "nobody is ever declared dead",
        "bus/membership/liveness.py",
        "gone = [peer for peer in self._peers.values() if now - peer.seen > self._lease]",
        "gone: list[PeerRunner] = []",
        FLEET,
    ),
    Mutant(
        "a job of a dead requester goes on",
        "bus/network/session.py",
        "        self.leases.stop_orphans()\n",
        "",
        FLEET,
    ),
    Mutant(
        "a job at most once is asked of another although the first may have run it",
        "bus/delivery/direct.py",
        "        if message.may_have_run:\n",
        "        if not message.origin:\n",
        DIRECT,
    ),
    Mutant(
        "a job at most once is not given up with the runner of its performer",
        "bus/delivery/direct.py",
        "                ask.gone_since = now  # what it sent last may be on its way\n",
        "                pass\n",
        DIRECT,
    ),
    Mutant(
        "nobody asks about a job at most once of which nothing is heard",
        "bus/delivery/direct.py",
        "                self._inquire(ask)\n",
        "                pass\n",
        DIRECT,
    ),
    Mutant(
        "a job at most once of which an event is missing is not given up",
        "bus/delivery/direct.py",
        "            if ask.gap_since is not None and now - ask.gap_since > self._lease:\n",
        "            if False:\n",
        DIRECT,
    ),
    Mutant(
        "a job at most once that is refused unstarted counts as lost",
        "bus/delivery/leases.py",
        "returned(request, may_have_run=False)",
        "returned(request, may_have_run=True)",
        DIRECT,
    ),
    Mutant(
        "jobs are never given up",
        "bus/delivery/leases.py",
        "elif (delivery.count or delivery.attempt) > self._max_deliver:",
        "elif False:",
        FLEET,
    ),
    Mutant(
        "a cancel that overtakes its request is forgotten",
        "bus/delivery/leases.py",
        "forgotten = self.claims.forbid(key, reason, frame_id)",
        "forgotten = None",
        FLEET,
    ),
    Mutant(
        "messages that come early are taken at once",
        "actors/requester/flow.py",
        "while self.early and self.expected in self.early:\n            message = self.early.pop(self.expected)",
        "while self.early:\n            message = self.early.pop(next(iter(self.early)))",
        FLEET,
    ),
    Mutant(
        "no credit is granted",
        "actors/requester/flow.py",
        "        self.granted = taken + WINDOW\n",
        "        return None\n",
        FLEET,
    ),
    Mutant(
        "a finished job stays in the table",
        "actors/performer/execution.py",
        "        slots.answered(self)\n        self._move(state)\n",
        "        self._move(state)\n",
        unit("unit/actors/jobs/test_outcomes.py"),
    ),
    Mutant(
        "the deadline of a group is not armed",
        "actors/requester/group.py",
        "        if left is not None:\n            self._timer",
        "        if False:\n            self._timer",
        unit("unit/actors/jobs/test_outcomes.py", "simulation/test_fleet.py"),
    ),
    Mutant(
        "nobody notices that a name is not served any more",
        "actors/runner/core.py",
        "if self.running and self.open_groups and not self.registry.available(change.worker_name):",
        "if False:",
        FLEET,
    ),
    Mutant(
        "a handler that swallows its cancellation is waited for",
        "actors/performer/execution.py",
        "            self._stopped(JobState.QUARANTINED)\n",
        "            pass\n",
        unit("unit/actors/performer/test_cancellation.py"),
    ),
    Mutant(
        "jobs asked for inside a cancelled job go on",
        "actors/performer/execution.py",
        "        for group in tuple(self.groups or ()):\n",
        "        for group in ():\n",
        unit("unit/actors/performer/test_cancellation.py"),
    ),
    Mutant(
        "the place of a message is not given back",
        "actors/worker/dispatch.py",
        "    room.give()\n",
        "    pass\n",
        unit("unit/actors/requester/test_backpressure.py"),
    ),
    Mutant(
        "only ordinary exceptions end a job",
        "actors/performer/execution.py",
        "except BaseException as error:  # noqa: BLE001 - the boundary",
        "except Exception as error:  # noqa: BLE001 - the boundary",
        unit("unit/actors/jobs/test_outcomes.py"),
    ),
    Mutant(
        "an urgent event overtakes its own job",
        "actors/worker/core.py",
        "self.open_mailbox().put_urgent(item, job_id)",
        "self.open_mailbox().put_urgent(item)",
        unit("unit/actors/requester/test_order_of_events.py"),
    ),
    Mutant(
        "payloads are shared instead of copied",
        "actors/requester/request.py",
        "values = [travel(params.payload)]",
        "values = [params.payload]",
        unit("unit/actors/requester/test_payloads.py"),
    ),
    Mutant(
        "an inactive worker is given jobs",
        "actors/worker/core.py",
        "serves = self.active and self.state is WorkerState.READY",
        "serves = self.state is WorkerState.READY",
        unit("unit/actors/worker/test_lanes.py"),
    ),
    Mutant(
        "parked requests are forgotten when somebody comes",
        "bus/local/bus.py",
        "for request, since in self._parked.pop(name, {}).values():",
        "for request, since in ():",
        unit("unit/actors/runner/test_supervision.py", "unit/actors/jobs/test_outcomes.py"),
    ),
    Mutant(
        "who follows a topic no more is still sent what is published",
        "bus/local/registry.py",
        "self._unfollow(data)",
        "pass",
        unit("simulation/test_topics.py"),
    ),
    Mutant(
        "restarts are never too many",
        "actors/jobs/policies.py",
        "return count if count <= self._policy.max_restarts else None",
        "return count",
        unit("unit/actors/runner/test_supervision.py", "unit/actors/runner/test_escalation.py"),
    ),
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
        '        self.create_task(self._sweep(), "sweep")\n',
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
        "who is cancelled cannot send any more",
        "bus/local/tasks.py",
        "        guard = anyio.CancelScope(shield=True)",
        "        guard = anyio.CancelScope()",
        unit("unit/actors/client/test_cancelled_client.py"),
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
        "signatures are not looked at",
        "bus/network/inbox.py",
        "lane=delivery.lane, verifier=self._signer",
        "lane=delivery.lane, verifier=None",
        unit("unit/bus/transport/test_forged_frames.py"),
    ),
    Mutant(
        "a frame from one inbox counts in another",
        "bus/network/inbox.py",
        "        if not right:",
        "        if False:",
        unit("unit/bus/transport/test_forged_frames.py"),
    ),
    Mutant(
        "a request that is played again is done again",
        "bus/delivery/leases.py",
        "done = self.claims.is_done(frame_id)",
        "done = False",
        unit("unit/bus/transport/test_forged_frames.py"),
    ),
    Mutant(
        "secret settings are shown",
        "actors/cli/settings.py",
        'redacted(value) if name in URLS else "***"',
        "value",
        COMMAND_LINE,
    ),
    Mutant(
        "what is wrong in the configuration file is ignored",
        "actors/cli/settings.py",
        "        if key not in known:",
        "        if not key:",
        COMMAND_LINE,
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
        COMMAND_LINE,
    ),
    Mutant(
        "workers that a module has imported count as its own",
        "actors/cli/target.py",
        "_is_worker(value) and value.__module__ == module_name and",
        "_is_worker(value) and",
        COMMAND_LINE,
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
    Mutant(
        "a trace ends at the job it was given to",
        "actors/observability/trace.py",
        "exits.append((current_trace.reset, current_trace.set(Trace.of(request))))",
        "pass",
        unit("unit/actors/observability/test_trace.py"),
    ),
    Mutant(
        "lines of one job carry the fields of another",
        "actors/observability/log_fields.py",
        "bound.append((variable.reset, variable.set(value)))",
        "variable.set(value)",
        unit("unit/actors/observability/test_log_fields.py"),
    ),
    Mutant(
        "the last events of a runner are lost",
        "actors/runner/core.py",
        "await self.job_events.flush()",
        "pass",
        unit("unit/actors/runner/test_runner_events.py"),
    ),
    Mutant(
        "events wait in any number",
        "actors/observability/job_events.py",
        "if len(self._news) >= KEPT:",
        "if False:",
        unit("unit/actors/client/test_job_follower.py"),
    ),
    Mutant(
        "what a handler raises is told as an outcome of the system",
        "actors/jobs/outcome.py",
        "told = error.error if error.status == JobStatus.FAILED else None",
        "told = error.error",
        ERRORS,
    ),
    Mutant(
        "a retry looks at the group and not at what failed in it",
        "actors/jobs/policies.py",
        "return bool(inner) and all(",
        "return bool(inner) and not all(",
        ERRORS,
    ),
    Mutant(
        "the failure of a request_job is lost",
        "actors/requester/group.py",
        "if self.unheard or self.asker.wanted:",
        "if self.asker.wanted:",
        ERRORS,
    ),
    Mutant(
        "an error is pickled by its constructor",
        "bus/errors.py",
        "return _again, (type(self), self.args), self.__dict__",
        "return Exception.__reduce__(self)",
        ERRORS,
    ),
    Mutant(
        "the text of a user's error is taken as it is",
        "bus/messages.py",
        'force_setattr(self, "message", said(self.message))',
        "pass",
        TEXTS,
    ),
    Mutant(
        "a job that was awaited warns",
        "actors/requester/contexts.py",
        "JobContext._asked = JobContext",
        "JobContext._asked = property(lambda self: type(self))",
        FORGOTTEN,
    ),
    Mutant(
        "a hook finds what another has left in a context variable",
        "bus/local/mailbox.py",
        "if lane.queue and not same_context(clean):",
        "if False:",
        EVENTS,
    ),
    Mutant(
        "event handlers begin when they like",
        "actors/worker/events.py",
        "        await handling.begun\n",
        "",
        EVENTS,
    ),
    Mutant(
        "who asks for more does not wait for slow hooks",
        "actors/requester/request.py",
        "room = send(message) if crowd is None else crowd",
        "room = send(message)",
        EVENTS,
    ),
    Mutant(
        "a refused answer leaves its job open",
        "actors/worker/dispatch.py",
        "    elif group.awaits(message.source):\n        text",
        "    elif False:\n        text",
        ACCEPTED,
    ),
    Mutant(
        "an observer sees what a handler does to a payload",
        "bus/local/bus.py",
        "        isolate(copy)\n    except EncodeError:",
        "        pass\n    except EncodeError:",
        OBSERVERS,
    ),
)


def plant(mutant: Mutant, tree: Path) -> None:
    """Put a fault into a copy of the code."""
    path = tree / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new))


def copy_tree(to: Path) -> None:
    """Copy what the checks need."""
    for name in ("actors", "bus", "docs", "tests"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)


def check(tree: Path, arguments: tuple[str, ...]) -> tuple[bool, str]:
    """Run a check in a tree. Whether it passed, and the end of what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=tree,
            env=environment(PYTHONPATH=str(tree)),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "it did not end"
    lines = (done.stdout + done.stderr).strip().splitlines()
    return done.returncode == 0, next((line for line in reversed(lines) if "failed" in line or "rror" in line), "")


def try_mutant(mutant: Mutant) -> tuple[bool, str]:
    """Whether a mutant is caught, and by what."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        plant(mutant, tree)
        passed, said = check(tree, mutant.check)
        return not passed, said


def main(names: list[str]) -> int:
    """Run mutants; 0 if all are caught."""
    mutants = [mutant for mutant in MUTANTS if not names or any(name in mutant.name for name in names)]
    with tempfile.TemporaryDirectory() as folder:
        copy_tree(Path(folder))
        for arguments in dict.fromkeys(mutant.check for mutant in mutants):
            passed, said = check(Path(folder), arguments)
            if not passed:
                print(f"the code itself fails {' '.join(arguments)}: {said}")
                return 1
    missed = 0
    with ThreadPoolExecutor(2) as pool:
        for mutant, (caught, said) in zip(mutants, pool.map(try_mutant, mutants), strict=True):
            missed += not caught
            print(f"{'caught' if caught else 'MISSED'}  {mutant.name}  {said[:110]}", flush=True)
    print(f"{len(mutants)} mutants, {len(mutants) - missed} caught, {missed} missed")
    return 1 if missed or not mutants else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
