"""The commands of ``workersai``, each in its module; importing one adds it to the app."""

from workersai.commands import batch, chat, doctor, models, serve, tokens
from workersai.commands.app import app

__all__ = ["app", "batch", "chat", "doctor", "models", "serve", "tokens"]
