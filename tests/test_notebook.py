"""The notebook runs from the first cell to the last."""

import nbformat
import pytest
from commands import ROOT
from nbclient import NotebookClient

SETTINGS = '["max_steps=500", "every.validation=250", "logger=csv"]'
SMOKE = '["debug=smoke", "network.channels=8", "network.groups=4", "logger=csv"]'


@pytest.mark.slow
def test_every_cell_runs(tmp_path):
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    assert SETTINGS in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace(SETTINGS, SMOKE)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    (scores,) = [o["data"]["text/plain"] for o in notebook.cells[-1].outputs if o.output_type == "execute_result"]
    assert scores.count("prediction-") == 2
