"""What a runner holds, as `statistics()` tells it."""

from __future__ import annotations

import msgspec


class RunnerStatistics(msgspec.Struct, frozen=True):
    """A snapshot of a runner: everything it holds.

    Attributes:
        workers: Workers on it.
        jobs: Jobs they have accepted and not answered.
        groups: Groups they asked for that have not ended.
        deadlines: Deadlines armed.
        tasks: Tasks that run something now.
        late_answers: Answers that came when nobody waited for them any more, since the start.
        threads: Threads that run plain handlers now (at most 40 for each worker, and those that wait for jobs).
        abandoned_threads: Those of them whose job has been answered without them; none can be stopped.
        remembered: Jobs asked for here under ids of their requesters' own whose outcome is remembered (at most 10,000,
            each for ten minutes).
    """

    workers: int
    jobs: int
    groups: int
    deadlines: int
    tasks: int
    late_answers: int
    threads: int
    abandoned_threads: int
    remembered: int
