"""How a job is asked for: parameters, in both spellings."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, TypedDict, TypeVar, dataclass_transform

import msgspec

from bus import BusOptions
from bus.log import said


class JobParams(msgspec.Struct, kw_only=True):
    """How to run a job on one worker.

    Attributes:
        name: Which `@job` handler; None reaches `on_job_request`.
        payload: What the handler gets. A copy travels: changing it afterwards changes nothing.
        timeout: Seconds for everything, from asking to the answer; None for no limit. A job asked for inside another
            never outlives that one's deadline.
        label: A text for people, at most 1,000 characters.
        cancellable: Whether `request_cancel_job_group` may cancel it.
        job_id: An id chosen by the caller, 1 to 128 characters. It names one job of its worker: asked for again while
            that runs, it is joined; asked for again within ten minutes of its answer or error (10,000 are remembered),
            it has that, and nothing runs. What ended without its worker, as by a timeout, may be asked for again. None
            makes one up.
        delivery: `at_least_once`: accepted, it survives its performer, and may run twice. `at_most_once`: faster, never
            stored and never run twice; if its performer or an answer is lost, it fails with the error type `JobLost`,
            and may or may not have run. None is the bus's own setting. In one process both are the same.
    """

    name: str | None = None
    payload: Any = None
    timeout: float | None = None
    label: str | None = None
    cancellable: bool = True
    job_id: str | None = None
    delivery: Literal["at_least_once", "at_most_once"] | None = None


class JobGroupParams(JobParams, kw_only=True):
    """How to run a job on several workers at once.

    Attributes:
        cancel_on_error: Whether one member that does not complete ends the whole group.
        payloads: Payloads of single members, by worker name; the others get `payload`.
    """

    cancel_on_error: bool = True
    payloads: dict[str, Any] | None = None


class _Keywords(TypedDict, total=False):
    name: str | None
    timeout: float | None
    label: str | None
    delivery: Literal["at_least_once", "at_most_once"] | None


class JobKeywords(_Keywords, total=False):
    """The keywords of `BaseWorker.job`, but the payload."""

    params: JobParams | None
    job_id: str | None
    cancellable: bool | None


class CallKeywords(TypedDict, total=False):
    """The keywords of `BaseWorker.call`."""

    on: str
    timeout: float | None
    label: str | None
    delivery: Literal["at_least_once", "at_most_once"] | None
    job_id: str | None
    cancellable: bool | None


class PayloadKeywords(JobKeywords, total=False):
    """The keywords of `BaseWorker.job`."""

    payload: Any


RUN_TTL = 7 * 86_400.0
"""Seconds a run is kept after it has ended, unless said otherwise: long enough for somebody to come back to it."""


class RunKeywords(_Keywords, total=False):
    """The keywords of `BaseWorker.job_group` that a run has too."""

    payload: Any
    payloads: dict[str, Any] | None
    cancel_on_error: bool | None


class GroupKeywords(RunKeywords, total=False):
    """The keywords of `BaseWorker.job_group`."""

    params: JobParams | None
    job_id: str | None
    cancellable: bool | None


class ForeignKeywords(TypedDict, total=False):
    """Keywords that constructors of Pipecat's have; they mean nothing here, and are taken so that its programs run."""

    check_dangling_tasks: bool
    task_manager: Any


class ForeignRunnerKeywords(ForeignKeywords, total=False):
    """Those of its runner."""

    force_gc: bool
    loop: Any


class RunnerOptions(BusOptions, ForeignRunnerKeywords, total=False):
    """What a runner takes beside its own arguments: the options of its bus, and words that mean nothing."""


class ClientOptions(BusOptions, total=False):
    """What a client takes beside its own arguments: the options of its bus, and one of its runner."""

    ready_timeout: float


def without_foreign(keywords: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """The keywords that are not among those of `kind`."""
    return {name: value for name, value in keywords.items() if name not in kind.__annotations__}


@dataclass_transform()
class DataclassBase:
    """Makes its subclasses dataclasses; `@dataclass` may stand on them all the same."""

    def __init_subclass__(cls) -> None:
        dataclasses.dataclass(cls)


ParamsT = TypeVar("ParamsT", bound=JobParams)

_MAX_JOB_ID = 128


def resolve(params: JobParams | None, kind: type[ParamsT], **keywords: Any) -> ParamsT:
    """Make one parameter object of the two spellings.

    Raises:
        TypeError: Both were given, or a keyword does not exist for this kind.
        ValueError: A value is out of its range.
    """
    given = {key: value for key, value in keywords.items() if value is not None}
    if params is None:
        resolved = kind(**given)
    elif given:
        raise TypeError(f"give either params= or {', '.join(f'{key}=' for key in given)}, not both")
    elif isinstance(params, kind):
        resolved = params
    elif not isinstance(params, JobParams):
        raise TypeError(f"params= takes a {kind.__name__}, not {params!r:.100}")
    else:
        resolved = kind(**{field: getattr(params, field) for field in params.__struct_fields__})
    return checked(resolved)


def checked(params: ParamsT) -> ParamsT:
    """Return parameters whose values are in their ranges.

    Raises:
        ValueError: One is not.
    """
    timeout = params.timeout
    if timeout is not None and not (type(timeout) is float and 0.0 <= timeout < math.inf):
        params = _with_valid_timeout(params)
    if params.delivery not in {None, "at_least_once", "at_most_once"}:
        raise ValueError(f"delivery must be 'at_least_once', 'at_most_once' or None, got {params.delivery!r}")
    if params.label is not None:
        params = msgspec.structs.replace(params, label=said(params.label))
    if params.job_id is not None:
        if not isinstance(params.job_id, str):
            raise TypeError(f"job_id must be a text, got {params.job_id!r:.100}")
        if not 0 < len(params.job_id) <= _MAX_JOB_ID:
            raise ValueError(f"job_id must have 1 to {_MAX_JOB_ID} characters, got {len(params.job_id)}")
    return params


def _with_valid_timeout(params: ParamsT) -> ParamsT:
    timeout: Any = params.timeout
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or math.isnan(timeout) or timeout < 0:
        raise ValueError(f"timeout must be a number of seconds, 0 or more, or None; got {timeout!r}")
    if timeout == math.inf:
        return msgspec.structs.replace(params, timeout=None)
    return params
