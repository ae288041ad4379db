"""The commands of ``workersai``, each in a module of its own."""

from workersai.commands import batch, chat, models, serve, tokens
from workersai.commands.app import app, main

__all__ = ["app", "batch", "chat", "main", "models", "serve", "tokens"]
