"""HTTP around workers and runs. It needs the extra `server`: `pip install 'actorbus[server]'`."""

from actors.server.access import ServerSettings
from actors.server.app import create_app, serve
from actors.server.listening import check_binding, listen

__all__ = ["ServerSettings", "check_binding", "create_app", "listen", "serve"]
