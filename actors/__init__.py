"""Actors on a message bus: workers that send each other jobs, each of which ends once and is told."""

import actors.surroundings  # noqa: F401 - first, so that a module that hides one of ours is named
from actors.client.client import Client
from actors.client.job_follower import follow_jobs
from actors.client.sync import SyncClient
from actors.jobs.errors import (
    ActorError,
    HandlerError,
    JobError,
    JobGroupError,
    JobRefusedError,
    JobResult,
    JobStateError,
    JobTimeoutError,
    ResultMismatchError,
    RunnerStateError,
    SupervisionError,
    WorkerUnavailableError,
)
from actors.jobs.events import JobEvent, JobGroupEvent, JobGroupResponse, JobRecord
from actors.jobs.params import JobGroupParams, JobParams
from actors.jobs.policies import RestartPolicy, RetryPolicy
from actors.observability.job_events import JobNews
from actors.observability.telemetry import install_telemetry, remove_telemetry
from actors.observability.trace import Trace, tracing
from actors.performer.job import Job
from actors.requester.contexts import JobContext, JobGroup, JobGroupContext
from actors.runner.runner import WorkerRunner
from actors.runner.statistics import RunnerStatistics
from actors.worker.core import WorkerStatistics
from actors.worker.function import Function, function
from actors.worker.handlers import job, subscribe, worker_ready
from actors.worker.worker import BaseWorker, WorkerActivationArgs, WorkerParams
from bus import Backoff, ErrorInfo, JobStatus

__all__ = [
    "ActorError",
    "Backoff",
    "BaseWorker",
    "Client",
    "ErrorInfo",
    "Function",
    "HandlerError",
    "Job",
    "JobContext",
    "JobError",
    "JobEvent",
    "JobGroup",
    "JobGroupContext",
    "JobGroupError",
    "JobGroupEvent",
    "JobGroupParams",
    "JobGroupResponse",
    "JobNews",
    "JobParams",
    "JobRecord",
    "JobRefusedError",
    "JobResult",
    "JobStateError",
    "JobStatus",
    "JobTimeoutError",
    "RestartPolicy",
    "ResultMismatchError",
    "RetryPolicy",
    "RunnerStateError",
    "RunnerStatistics",
    "SupervisionError",
    "SyncClient",
    "Trace",
    "WorkerActivationArgs",
    "WorkerParams",
    "WorkerRunner",
    "WorkerStatistics",
    "WorkerUnavailableError",
    "follow_jobs",
    "function",
    "install_telemetry",
    "job",
    "remove_telemetry",
    "subscribe",
    "tracing",
    "worker_ready",
]
