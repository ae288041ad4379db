"""Says what to install where the framework is missing."""

try:
    import llama_index.core
except ImportError as error:
    raise ImportError(
        f"llamaindex_workersai needs {error.name}, which is not installed: pip install 'workersai[llamaindex]'"
    ) from error

__all__ = ["llama_index"]
