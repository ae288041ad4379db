"""LlamaIndex models for Cloudflare Workers AI."""

from llamaindex_workersai import _extra as _extra
from llamaindex_workersai.llm import WorkersAI

__all__ = ["WorkersAI"]
