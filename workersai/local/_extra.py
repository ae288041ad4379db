"""Says what to install where the libraries of the local server are missing."""

try:
    import jsonschema
    import starlette
    import uvicorn
except ImportError as error:
    raise ImportError(
        f"workersai.local needs {error.name}, which is not installed: pip install 'workersai[local]'"
    ) from error

__all__ = ["jsonschema", "starlette", "uvicorn"]
