"""Runs the notebooks from top to bottom, and stores what they show: ``python -m notebooks.run [name ...]``.

Each runs in a kernel of this very interpreter. What that leaves behind (versions, times of cells, addresses of objects)
is not stored, so that a diff shows what has changed.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
NOTEBOOKS = tuple(sorted(FOLDER.glob("*.ipynb")))

# The longest that one cell may take, in seconds: on a machine that is busy with other work, the model is slow.
_PATIENCE = 1_800
_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class OwnKernel(AsyncKernelManager):
    """A kernel of this interpreter, whatever kernels the user has installed under the name ``python3``."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)


def executed(path: Path, folder: Path) -> Any:
    """The notebook with the outputs of a run in ``folder``.

    Raises:
        CellExecutionError: a cell failed.
        CellTimeoutError: a cell took longer than half an hour.
    """
    notebook: Any = nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]
    client = NotebookClient(
        notebook,
        timeout=_PATIENCE,
        resources={"metadata": {"path": str(folder)}},
        kernel_manager_class=OwnKernel,
        record_timing=False,
        # Its warning that others on this machine can see what goes over loopback is true, and no news.
        extra_arguments=["--log-level=ERROR"],
    )
    client.execute()
    notebook["metadata"] = _METADATA
    for number, cell in enumerate(notebook.cells):
        for data in (output.get("data", {}) for output in cell.get("outputs", ())):
            if "text/plain" in data:
                data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", data["text/plain"])
            if "text/html" in data:  # pandas draws lots for the name of each table
                data["text/html"] = re.sub(r"\bT_[0-9a-f]{5}(?=[\s_\"])", f"T_{number}", data["text/html"])
    return notebook


def main(names: Sequence[str]) -> None:
    """Runs those notebooks, all of them if none is named, and stores them with their outputs."""
    for path in NOTEBOOKS:
        if names and path.stem not in names:
            continue
        began = time.perf_counter()
        nbformat.write(executed(path, FOLDER), path)  # type: ignore[no-untyped-call]
        print(f"{path.name}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
