"""Says what to install where Ray is missing."""

try:
    import pyarrow as pa
    import ray.data
except ImportError as error:
    raise ImportError(
        f"workersai.ray needs {error.name}, which is not installed: pip install 'workersai[ray]'"
    ) from error

__all__ = ["pa", "ray"]
