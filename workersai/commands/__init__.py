"""The commands of ``workersai``, each in a module of its own."""

from workersai.commands import batch, serve
from workersai.commands.app import app, main

__all__ = ["app", "batch", "main", "serve"]
