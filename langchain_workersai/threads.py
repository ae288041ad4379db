"""The thread that a call belongs to, found in LangChain's configuration."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables import RunnableConfig, ensure_config

from workersai.options import AUTO
from workersai.protocol.affinity import affinity_of_thread

_THREAD = "thread_id"


def in_thread(options: dict[str, Any], config: RunnableConfig | None = None) -> dict[str, Any]:
    """The options of a call, with the id of its thread in place of ``"auto"``, if it has a thread.

    The thread is LangGraph's: ``thread_id`` in the ``configurable`` of the configuration, the call's own or that of the
    run that it is inside of; or in its metadata, where LangSmith looks for it.
    """
    if options.get("session_affinity") != AUTO:
        return options
    whole = ensure_config(config)
    thread = whole.get("configurable", {}).get(_THREAD)
    thread = whole.get("metadata", {}).get(_THREAD) if thread is None else thread
    return options if thread is None else {**options, "session_affinity": affinity_of_thread(thread)}
