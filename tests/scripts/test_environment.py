import ast
import errno
import importlib.util
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """The module, working on an empty checkout with much room on its disk."""
    module = load("environment")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "ENVIRONMENT", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp")
    monkeypatch.setattr(module, "LOG", tmp_path / ".venv" / "install.log")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: SimpleNamespace(free=100e9))
    (tmp_path / "requirements.lock").write_text("torch==2.13.0\n", encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (tmp_path / ".venv").mkdir()
    return module


@pytest.mark.parametrize("name", ["demo.py", "test.py", "environment.py"])
def test_the_two_commands_parse_on_a_python_too_old_to_run_them(name):
    ast.parse((SCRIPTS / name).read_text(encoding="utf-8"), feature_version=(3, 6))


@pytest.mark.parametrize("name", ["demo.py", "test.py", "environment.py"])
def test_the_two_commands_need_nothing_but_the_standard_library(name):
    tree = ast.parse((SCRIPTS / name).read_text(encoding="utf-8"))
    imported = {
        alias.name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    } | {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported <= {"environment", *sys.stdlib_module_names}


def test_an_old_python_is_told_so_in_one_line(environment, monkeypatch, capsys):
    monkeypatch.setattr(environment.sys, "version_info", (3, 8, 10))
    with pytest.raises(SystemExit) as stopped:
        environment.ready_python()
    assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "needs Python 3.11 or newer; this is 3.8" in told


def test_a_full_disk_is_told_in_one_line_before_anything_is_installed(
    environment, monkeypatch, capsys
):
    monkeypatch.setattr(environment.shutil, "disk_usage", lambda path: SimpleNamespace(free=1e9))
    with pytest.raises(SystemExit) as stopped:
        environment.ready_python()
    assert stopped.value.code == 6
    assert capsys.readouterr().err.count("\n") == 1
    assert list((environment.ROOT / ".venv").iterdir()) == []


def test_a_disk_that_fills_while_installing_is_told_in_one_line(environment, monkeypatch, capsys):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(environment, "make_environment", full)
    with pytest.raises(SystemExit) as stopped:
        environment.ready_python()
    assert stopped.value.code == 6
    assert "the disk is full" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "code"),
    [("ERROR: No matching distribution found", 2), ("OSError: No space left on device", 6)],
)
def test_a_failed_installation_shows_the_end_of_what_pip_said(
    environment, monkeypatch, capsys, words, code
):
    def pip(command, stdout, **options):
        stdout.write(f"line 1\n{words}\n".encode())
        stdout.flush()
        return 1

    monkeypatch.setattr(environment, "make_environment", lambda: None)
    monkeypatch.setattr(environment.subprocess, "call", pip)
    with pytest.raises(SystemExit) as stopped:
        environment.ready_python()
    assert stopped.value.code == code
    assert words in capsys.readouterr().out
    assert not environment.STAMP.exists()


def test_the_second_run_installs_nothing_until_the_lock_changes(environment, monkeypatch):
    installed = []
    monkeypatch.setattr(environment, "make_environment", lambda: None)
    monkeypatch.setattr(environment, "install", lambda: installed.append(1))
    monkeypatch.setattr(environment, "works", lambda python: True)
    for _ in range(2):
        environment.ready_python()
    assert len(installed) == 1
    (environment.ROOT / "requirements.lock").write_text("torch==2.14.0\n", encoding="utf-8")
    environment.ready_python()
    assert len(installed) == 2


def test_the_environment_is_found_where_windows_puts_it(environment, monkeypatch):
    monkeypatch.setattr(environment, "os", SimpleNamespace(name="nt"))
    assert environment.python_inside().parts[-2:] == ("Scripts", "python.exe")


def test_the_lock_pins_torch_exactly_and_names_no_registry():
    lines = (SCRIPTS.parent / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert "torch==2.13.0" in pins
    assert all("==" in pin and "+" not in pin and "://" not in pin for pin in pins)


def test_the_lock_holds_every_dependency_of_the_package():
    project = tomllib.loads((SCRIPTS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    lines = (SCRIPTS.parent / "requirements.lock").read_text(encoding="utf-8").lower().splitlines()
    locked = {line.split("==")[0].replace("_", "-") for line in lines}
    assert {need.split(">=")[0].lower() for need in wanted} <= locked


def test_every_check_runs_although_one_fails_and_the_exit_code_says_so(
    environment, monkeypatch, capfd
):
    monkeypatch.setitem(sys.modules, "environment", environment)
    monkeypatch.setattr(environment, "ready_python", lambda: Path(sys.executable))
    monkeypatch.setattr(sys, "argv", ["test.py"])
    checks = load("test")
    fails = [sys.executable, "-c", "raise SystemExit(3)"]
    speaks = [sys.executable, "-c", "import os; print('threads', os.environ['OMP_NUM_THREADS'])"]
    beside = ("three", [sys.executable, "-c", "print('said at last'); raise SystemExit(4)"], {})
    table = [[("one", fails, {})], [("two", speaks, checks.ONE_THREAD), beside]]
    monkeypatch.setattr(checks, "checks", lambda python, data, quick: table)
    assert checks.main() == 1
    told = capfd.readouterr().out
    assert "threads 1" in told
    assert told.index("== three ==") < told.index("said at last") < told.index("== summary ==")
    summary = told[told.index("== summary ==") :].splitlines()
    assert summary[1].startswith("one")
    assert summary[1].endswith("FAILED (3)")
    assert summary[2].startswith("two")
    assert summary[2].endswith("passed")
    assert summary[3].startswith("three")
    assert summary[3].endswith("FAILED (4)")


def test_the_data_folder_reaches_every_run_of_the_tests_in_one_word(environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "environment", environment)
    rows = load("test").checks(Path("python"), "/open data", quick=False)
    runs = [command for at_once in rows for name, command, _ in at_once if "tests" in name]
    assert len(runs) == 2
    assert all("--data=/open data" in command for command in runs)


def test_pytest_finds_its_settings_beside_a_data_folder_elsewhere(tmp_path):
    command = [sys.executable, "-m", "pytest", f"--data={tmp_path}", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPTS.parent, check=False)
    assert told.returncode == 0, told.stderr
    assert "--data=DIR" in told.stdout
