"""Bulk work: many requests, in batches of the service or as single calls, with a journal that loses none."""

from workersai.batch.asking import BatchOptions, job_of, without_the_jobs
from workersai.batch.handles import AsyncBatch, Batch
from workersai.batch.reading import RequestLike
from workersai.batch.reports import notes_of, progress_of, results_of
from workersai.batch.values import BatchRequest, BatchResult, Progress
from workersai.protocol.batch import prompt_of

__all__ = [
    "AsyncBatch",
    "Batch",
    "BatchOptions",
    "BatchRequest",
    "BatchResult",
    "Progress",
    "RequestLike",
    "job_of",
    "notes_of",
    "progress_of",
    "prompt_of",
    "results_of",
    "without_the_jobs",
]
