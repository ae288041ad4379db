"""Asks a model about each row of a Ray Dataset, on any number of machines that keep one rate limit together."""

from workersai.ray import _extra as _extra
from workersai.ray.ask import AskModel, AskOptions
from workersai.ray.sharing import forget_rate_limit

__all__ = [
    "AskModel",
    "AskOptions",
    "forget_rate_limit",
]
