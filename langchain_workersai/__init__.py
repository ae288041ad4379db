"""LangChain models for Cloudflare Workers AI."""

from langchain_workersai import _extra as _extra
from langchain_workersai.chat_models import ChatWorkersAI
from langchain_workersai.embeddings import WorkersAIEmbeddings
from langchain_workersai.llms import WorkersAILLM
from langchain_workersai.rerank import WorkersAIRerank

__all__ = ["ChatWorkersAI", "WorkersAIEmbeddings", "WorkersAILLM", "WorkersAIRerank"]
