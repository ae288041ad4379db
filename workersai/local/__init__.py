"""A server on this machine that speaks Workers AI's wire, with a small real model or a script behind it."""

from workersai.local import _extra as _extra
from workersai.local.engine import CalledTool, Engine, RawReply
from workersai.local.faults import Fault
from workersai.local.records import RequestRecord
from workersai.local.scripted import Answer, Gate, Refusal, ScriptedEngine, streamed_calls
from workersai.local.server import LocalServer
from workersai.local.smollm import SmolLM
from workersai.local.vectors import Embedder

__all__ = [
    "Answer",
    "CalledTool",
    "Embedder",
    "Engine",
    "Fault",
    "Gate",
    "LocalServer",
    "RawReply",
    "Refusal",
    "RequestRecord",
    "ScriptedEngine",
    "SmolLM",
    "streamed_calls",
]
