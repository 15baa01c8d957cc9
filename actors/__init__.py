"""Actors on a message bus: workers that send each other jobs, each of which ends once and is told."""

from actors.client import Client
from actors.contexts import JobContext, JobGroupContext
from actors.errors import (
    ActorError,
    HandlerError,
    JobError,
    JobGroupError,
    JobRefusedError,
    JobResult,
    JobStateError,
    JobTimeoutError,
    RunnerStateError,
    SupervisionError,
    WorkerUnavailableError,
)
from actors.events import JobEvent, JobGroupEvent, JobGroupResponse
from actors.function import Function, function
from actors.handlers import job, subscribe, worker_ready
from actors.job import Job
from actors.job_events import JobNews, JobRecord
from actors.job_follower import follow_jobs
from actors.lane import WorkerStatistics
from actors.params import JobGroupParams, JobParams, WorkerActivationArgs, WorkerParams
from actors.requests import JobGroup
from actors.restart import RestartPolicy, RetryPolicy
from actors.runner import WorkerRunner
from actors.statistics import RunnerStatistics
from actors.sync.client import SyncClient
from actors.telemetry import install_telemetry, remove_telemetry
from actors.trace import Trace, tracing
from actors.worker import BaseWorker
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
