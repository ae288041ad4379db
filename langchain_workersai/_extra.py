"""Says what to install where the framework is missing."""

try:
    import langchain_core
except ImportError as error:
    raise ImportError(
        f"langchain_workersai needs {error.name}, which is not installed: pip install 'workersai[langchain]'"
    ) from error

__all__ = ["langchain_core"]
