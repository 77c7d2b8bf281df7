import importlib.util
import json
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "hooks.py"


@pytest.fixture
def hooks():
    spec = importlib.util.spec_from_file_location("hooks", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_large_files_private_keys_and_data_are_refused(hooks, tmp_path):
    (tmp_path / "big.txt").write_bytes(bytes(500_001))
    (tmp_path / "key.txt").write_bytes(b"-----BEGIN RSA PRIVATE " + b"KEY-----\nabc")
    (tmp_path / "labs.CSV").write_text("a,b\n", encoding="utf-8")
    (tmp_path / "fine.py").write_text("x = 1\n", encoding="utf-8")
    files = [str(path) for path in sorted(tmp_path.iterdir())]
    for name, wrong in [("large", "big.txt"), ("keys", "key.txt"), ("data", "labs.CSV")]:
        assert hooks.main([name, *files]) == 1
        assert hooks.main([name, *(file for file in files if not file.endswith(wrong))]) == 0


def test_a_notebook_loses_its_output_and_nothing_else(hooks, tmp_path):
    cell = {
        "cell_type": "code",
        "execution_count": 3,
        "id": "a1",
        "metadata": {"collapsed": True, "tags": ["slow"]},
        "outputs": [{"output_type": "stream", "text": ["subject 7\n"]}],
        "source": ["print(7)"],
    }
    notebook = {"cells": [cell], "metadata": {"kernelspec": {}}, "nbformat": 4, "nbformat_minor": 5}
    path = tmp_path / "one.ipynb"
    path.write_text(json.dumps(notebook), encoding="utf-8")
    assert hooks.notebooks(path) is not None
    hooks.main(["notebooks", str(path)])
    assert hooks.notebooks(path) is None
    kept = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    assert kept["outputs"] == []
    assert kept["execution_count"] is None
    assert kept["source"] == ["print(7)"]
    assert kept["metadata"] == {"tags": ["slow"]}
