"""LlamaIndex models for Cloudflare Workers AI."""

from llamaindex_workersai import _extra as _extra
from llamaindex_workersai.embeddings import WorkersAIEmbedding
from llamaindex_workersai.llm import WorkersAI
from llamaindex_workersai.rerank import WorkersAIRerank

__all__ = ["WorkersAI", "WorkersAIEmbedding", "WorkersAIRerank"]
