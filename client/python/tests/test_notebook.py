"""The notebook runs from its first cell to its last, in a kernel on loopback, and shows what it says."""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "notebooks" / "markdown_to_prompt.ipynb"


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = nbformat.read(NOTEBOOK, as_version=4).cells
    assert all(not c.get("outputs") and c.get("execution_count") is None for c in cells)


def test_the_notebook_runs(server: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Plots are drawn into the page; what Jupyter and matplotlib keep stays in the test's folder.
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLCONFIGDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
        os.makedirs(tmp_path / variable)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    settings = next(c for c in notebook.cells if c.cell_type == "code")
    assert settings.source.count("=") == 3
    settings.source = f"URL, DOCS, COLLECTION = {server!r}, {str(ROOT / 'demo' / 'docs')!r}, {name!r}"
    kernel = AsyncKernelManager(kernel_name="python3", ip="127.0.0.1", transport="tcp")
    # An error in a cell is raised here.
    NotebookClient(notebook, km=kernel, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()

    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    plots = [base64.b64decode(o.data["image/png"]) for o in outputs if "image/png" in o.get("data", {})]
    assert len(plots) == 2 and all(p.startswith(b"\x89PNG") for p in plots)
    said = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    assert re.search(r"33\d documents, \d{4} chunks", said) and re.search(r"\[1\] etcd-v3\.6/\S+", said)
    # The extra `notebook` brings what a bar is drawn with in a page; without it tqdm warns, and draws one of letters.
    assert any("application/vnd.jupyter.widget-view+json" in o.get("data", {}) for o in outputs)
    recall = next(o.data["text/plain"] for o in reversed(outputs) if "recall@10" in o.get("data", {}).get("text/plain", ""))
    found = {int(m): float(r) for m, r in re.findall(r"^(\d+)\s+([\d.]+)$", recall, flags=re.MULTILINE)}
    assert set(found) == {4, 8, 16} and found[16] >= 0.98
    if folder := os.environ.get("CAIRN_NOTEBOOK_OUT"):
        for i, plot in enumerate(plots):
            Path(folder, f"plot-{i}.png").write_bytes(plot)
