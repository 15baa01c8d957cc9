"""The client for code without an event loop: its methods block until the answer is there."""

from actors.sync.client import SyncClient
from actors.sync.jobs import SyncJobContext, SyncJobGroupContext
from actors.sync.letters import SyncDeadLetters
from actors.sync.run import SyncRun

__all__ = ["SyncClient", "SyncDeadLetters", "SyncJobContext", "SyncJobGroupContext", "SyncRun"]
