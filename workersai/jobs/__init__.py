"""Many calls at once: what a job asks for step by step, and what drives it, in threads or in tasks.

Bulk work with its journal (``workersai.batch``) and embeddings (``workersai.retrieval``) are such jobs.
"""
