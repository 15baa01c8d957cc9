"""What `help()` shows of the classes that users hold: what is meant for users, and nothing of the machinery."""

from __future__ import annotations

import pydoc
import re
from typing import Any

import pytest

from actors import (
    BaseWorker,
    Client,
    Job,
    JobContext,
    JobGroup,
    JobGroupContext,
    SyncClient,
    WorkerRunner,
)
from actors.runs import Run

HOOKS = """
    on_activated on_bus_message on_deactivated on_job_cancelled on_job_completed on_job_error on_job_request
    on_job_response on_job_stream_data on_job_stream_end on_job_stream_start on_job_update on_job_update_requested
    on_worker_failed on_worker_lost on_worker_ready
"""
EVENTS = "add_event_handler event_handler event_names remove_event_handler"

SHOWN: dict[type[Any], str] = {
    BaseWorker: f"""
        {HOOKS} {EVENTS}
        accepts_bus_message activate_worker activation_args active active_jobs add_workers attach bridged bus call
        cancel cancel_job_group cancel_task children cleanup create_job_group_and_request_job create_task
        deactivate_worker end gather job job_group job_groups mailbox_size max_concurrency name parent publish
        registry request_cancel_job_group request request_job request_job_group request_job_update run
        send_bus_error_message send_bus_message send_job_response send_job_stream_data send_job_stream_end
        send_job_stream_start send_job_update start started_at statistics stop stream supervise unwatch_workers wait
        watch_workers when_full worker_runner
    """,
    Job: """
        attempt cancelled ended id name payload remaining request requester respond stream stream_end stream_start sync
        trace update worker_name
    """,
    JobContext: "cancel job_id response results",
    JobGroupContext: "cancel job_id responses results",
    JobGroup: """
        cancel cancel_on_error cancellable error is_done job_id label name responses results statistics tell_to_stop
        terminated wait worker_names
    """,
    WorkerRunner: f"""
        {EVENTS} add_workers bus cancel end get_worker name registry remove_worker run running statistics supervise
        workers
    """,
    Client: "call dead_letters gather job job_group request requeue run runs stream submit sync workers",
    SyncClient: "call dead_letters gather job job_group request requeue run runs stream submit workers",
    Run: "cancel events result status",
}
"""The names that each class shows; a new one is entered here when users are meant to have it."""

each_class = pytest.mark.parametrize("kind", SHOWN, ids=lambda kind: kind.__name__)


@each_class
def test_a_class_shows_what_users_need_and_no_more(kind: type[Any]) -> None:
    assert sorted(name for name in dir(kind) if not name.startswith("_")) == sorted(SHOWN[kind].split())


@each_class
def test_help_says_something_of_every_name_and_speaks_of_nothing_else(kind: type[Any]) -> None:
    text = pydoc.plain(pydoc.render_doc(kind))
    named = set(re.findall(r"^ \|  (\w+)(?:\(|$| = )", text, re.MULTILINE))
    assert {name for name in named if not name.startswith("_")} <= {*SHOWN[kind].split(), kind.__name__}
    undocumented = [
        name
        for name in SHOWN[kind].split()
        if (callable(getattr(kind, name)) or isinstance(getattr(kind, name), property))
        and not pydoc.getdoc(getattr(kind, name))
    ]
    assert undocumented == []
