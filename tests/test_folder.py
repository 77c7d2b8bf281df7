import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clinode import folder
from clinode.errors import CheckpointError, OutputError, ResourceError
from clinode.folder import (
    atomic_write,
    check_writable,
    read_json,
    verify_folder,
    write_folder,
    write_json,
)

STEPS = ["fsync", "rename", "mkdir", "open"]  # how a folder reaches the disk, all through `os`


def writer(content: str):
    def write(path: Path) -> None:
        (path / "parts").mkdir()
        (path / "weights.bin").write_bytes(content.encode() * 100)
        (path / "parts" / "note.txt").write_text(content, encoding="utf-8")

    return write


def state(target: Path) -> str:
    """Which whole state stands at a place: what was written there, or nothing."""
    if not target.exists():
        return "nothing"
    verify_folder(target, "run")
    return (target / "parts" / "note.txt").read_text(encoding="utf-8")


def hidden(parent: Path) -> list[str]:
    return [path.name for path in parent.iterdir() if path.name.startswith(".")]


def fail_at(monkeypatch, step: str, k: int, number: int) -> list[int]:
    """Make the k-th call of an `os` function fail with an error number; count the calls."""
    real, calls = getattr(os, step), [0]

    def failing(*args, **kwargs):
        calls[0] += 1
        if calls[0] == k:
            raise OSError(number, os.strerror(number))
        return real(*args, **kwargs)

    monkeypatch.setattr(os, step, failing)
    return calls


def test_a_written_folder_lists_size_and_hash_of_every_file(tmp_path):
    write_folder(tmp_path / "run", writer("new"), kind="run")
    manifest = verify_folder(tmp_path / "run", "run")
    assert manifest["kind"] == "run"
    assert manifest["files"]["parts/note.txt"] == {
        "bytes": 3,
        "sha256": "11507a0e2f5e69d5dfa40a62a1bd7b6ee57e6bcd85c67c9b8431b36fff21c437",
    }
    assert set(manifest["files"]) == {"parts/note.txt", "weights.bin"}
    assert hidden(tmp_path) == []


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_folder(tmp_path / name, writer("same"), kind="run")
    for file in ("manifest.json", "weights.bin"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_parents_are_made_and_an_empty_target_is_filled(tmp_path):
    target = tmp_path / "deep" / "er" / "run"
    target.mkdir(parents=True)
    write_folder(target, writer("new"), kind="run")
    assert state(target) == "new"
    write_folder(tmp_path / "not" / "yet" / "run", writer("new"), kind="run")
    assert state(tmp_path / "not" / "yet" / "run") == "new"


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("old", ["nothing", "old"])
def test_whichever_call_fails_the_old_state_or_the_new_one_stands(
    tmp_path, monkeypatch, step, number, old
):
    target = tmp_path / "run"
    for k in range(1, 60):
        shutil.rmtree(target, ignore_errors=True)
        if old == "old":
            write_folder(target, writer("old"), kind="run")
        with monkeypatch.context() as patch:
            calls = fail_at(patch, step, k, number)
            try:
                write_folder(target, writer("new"), kind="run", replace=True)
                failed = False
            except (ResourceError, OutputError):
                failed = True
        assert state(target) in {old, "new"}
        assert failed or state(target) == "new"
        left = hidden(tmp_path)
        assert not left or (".old-" in left[0] and not failed), "only a removal may be left undone"
        for name in left:
            shutil.rmtree(tmp_path / name)
        if calls[0] < k:
            assert k > 1, "no call was made to fail"
            return
    pytest.fail("the fault never stopped being reached")


KILLED = """
import os, sys
from pathlib import Path
from clinode.folder import write_folder
step, k = sys.argv[2], int(sys.argv[3])
real, calls = getattr(os, step), [0]
def killing(*args, **kwargs):
    calls[0] += 1
    if calls[0] == k:
        os._exit(9)
    return real(*args, **kwargs)
setattr(os, step, killing)
def writer(path):
    (path / "parts").mkdir()
    (path / "weights.bin").write_bytes(b"new" * 100)
    (path / "parts" / "note.txt").write_text("new")
write_folder(Path(sys.argv[1]), writer, kind="run", replace=True)
"""


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_kill_before_any_step_leaves_the_old_state_or_the_new_one(tmp_path, step):
    target = tmp_path / "run"
    write_folder(target, writer("old"), kind="run")
    k, died = 0, True
    while died:
        k += 1
        command = [sys.executable, "-c", KILLED, str(target), step, str(k)]
        died = subprocess.run(command, check=False, capture_output=True).returncode == 9
        verify_folder(target, "run")
        assert state(target) in {"old", "new"}
    assert k > 1, "no call was made to be killed at"
    assert state(target) == "new"
    check_writable(target, kind="run", replace=True)
    assert hidden(tmp_path) == [], "what killed writers left is swept by the next one"


@pytest.mark.skipif(os.name == "nt", reason="limits of a process are set otherwise there")
def test_a_file_too_big_for_the_disk_is_said_and_leaves_nothing(tmp_path):
    code = (
        "import resource, sys; from clinode.folder import write_folder; "
        "sys.dont_write_bytecode = True; "  # or compiled modules would be cut off too
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        "write_folder(sys.argv[1], lambda p: (p / 'a').write_bytes(bytes(10_000)), kind='run')"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]
    told = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    assert "ResourceError" in told
    assert "the disk is full" in told
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_that_a_library_reports_in_its_own_words_is_recognized(tmp_path):
    class SafetensorError(Exception):
        pass

    def write(path: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with pytest.raises(ResourceError, match="disk is full"):
        write_folder(tmp_path / "run", write, kind="run")
    assert list(tmp_path.iterdir()) == []


def test_what_the_writer_raises_is_passed_on_and_nothing_is_left(tmp_path):
    def write(path: Path) -> None:
        (path / "half").write_bytes(b"1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder(tmp_path / "run", write, kind="run")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_a_parent_that_may_not_be_written_to_is_found_before_any_work(
    tmp_path, monkeypatch, number
):
    worked = []
    fail_at(monkeypatch, "mkdir", 1, number)
    with pytest.raises(OutputError, match="not allowed"):
        write_folder(tmp_path / "run", worked.append, kind="run")
    assert worked == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a user with limits")
def test_a_parent_with_no_write_permission_is_refused(tmp_path):
    parent = tmp_path / "locked"
    parent.mkdir()
    parent.chmod(0o555)
    with pytest.raises(OutputError, match="not allowed"):
        check_writable(parent / "run")


def test_a_place_below_a_file_is_refused_in_words(tmp_path):
    (tmp_path / "file").write_text("words", encoding="utf-8")
    with pytest.raises(OutputError, match="no folder can be made there"):
        check_writable(tmp_path / "file" / "run")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="this system has no /proc")
def test_a_place_where_the_system_makes_no_folders_is_refused_in_words():
    with pytest.raises(OutputError, match=r"no folder can be made there|not allowed"):
        check_writable("/proc/run")


def test_an_occupied_target_is_never_touched(tmp_path):
    target = tmp_path / "thesis"
    target.mkdir()
    (target / "chapter-1.txt").write_text("words", encoding="utf-8")
    for replace in (False, True):
        with pytest.raises(OutputError, match="not empty"):
            write_folder(target, writer("new"), kind="run", replace=replace)
    assert [path.name for path in target.iterdir()] == ["chapter-1.txt"]


def test_a_folder_of_another_kind_or_without_leave_is_not_replaced(tmp_path):
    target = tmp_path / "run"
    write_folder(target, writer("old"), kind="run")
    with pytest.raises(OutputError, match="not empty"):
        write_folder(target, writer("new"), kind="run")
    with pytest.raises(OutputError, match="a run stands there, not a report"):
        write_folder(target, writer("new"), kind="report", replace=True)
    assert state(target) == "old"


def test_a_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "run").write_text("a file", encoding="utf-8")
    with pytest.raises(OutputError, match="a file stands there"):
        check_writable(tmp_path / "run")


def test_a_target_through_a_symbolic_link_is_written_where_the_link_leads(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk", target_is_directory=True)
    write_folder(tmp_path / "link", writer("new"), kind="run")
    assert state(tmp_path / "disk") == "new"


def test_of_two_writers_of_one_place_the_first_to_finish_wins(tmp_path):
    target = tmp_path / "run"

    def slow(path: Path) -> None:
        writer("slow")(path)
        write_folder(target, writer("quick"), kind="run")

    with pytest.raises(OutputError, match="another process"):
        write_folder(target, slow, kind="run")
    assert state(target) == "quick"
    assert hidden(tmp_path) == []


def test_every_truncation_and_bit_flip_of_every_file_is_found(tmp_path):
    target = tmp_path / "run"
    write_folder(target, writer("intact"), kind="run")
    for name in ("manifest.json", "weights.bin", "parts/note.txt"):
        file = target / name
        good = file.read_bytes()
        cut = [good[: len(good) * i // 20] for i in range(20)]
        flipped = [
            good[:i] + bytes([good[i] ^ (1 << i % 8)]) + good[i + 1 :]
            for i in range(0, len(good), max(1, len(good) // 97))
        ]
        for bad in [*cut, *flipped, good + b"\n"]:
            file.write_bytes(bad)
            with pytest.raises(CheckpointError):
                verify_folder(target, "run")
        file.write_bytes(good)
        verify_folder(target, "run")


def test_a_missing_truncated_or_altered_file_is_named(tmp_path):
    target = tmp_path / "run"
    write_folder(target, writer("intact"), kind="run")
    weights = target / "weights.bin"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"run/weights.bin: .*truncated.*599 of 600 bytes"):
        verify_folder(target, "run")
    weights.write_bytes(b"I" + b"intact" * 99 + b"ntact")
    with pytest.raises(CheckpointError, match=r"run/weights.bin: .*SHA-256"):
        verify_folder(target, "run")
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"run/weights.bin: the file is missing"):
        verify_folder(target, "run")


def test_a_folder_of_another_kind_or_none_at_all_is_refused_in_words(tmp_path):
    write_folder(tmp_path / "run", writer("new"), kind="run")
    with pytest.raises(CheckpointError, match="expected a cohort, found a run"):
        verify_folder(tmp_path / "run", "cohort")
    with pytest.raises(CheckpointError, match="no such folder"):
        verify_folder(tmp_path / "nowhere", "run")
    (tmp_path / "plain").mkdir()
    with pytest.raises(CheckpointError, match="not written by clinode"):
        verify_folder(tmp_path / "plain", "run")


def test_a_newer_format_asks_for_an_upgrade(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(folder, "FORMAT", 7)
        write_folder(tmp_path / "run", writer("new"), kind="run")
    with pytest.raises(CheckpointError, match=r"format 7.*upgrade clinode"):
        verify_folder(tmp_path / "run", "run")


def test_a_manifest_cannot_name_files_outside_its_folder(tmp_path, monkeypatch):
    target = tmp_path / "run"
    write_folder(target, writer("new"), kind="run")
    manifest = json.loads((target / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"]["../secret"] = manifest["files"].pop("weights.bin")
    del manifest["sha256"]
    sealed = folder.hashlib.sha256(folder._json_text(manifest).encode()).hexdigest()
    text = folder._json_text({**manifest, "sha256": sealed})
    (target / "manifest.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match="altered"):
        verify_folder(target, "run")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_atomic_write_leaves_the_file_as_it_was(tmp_path, monkeypatch, step):
    path = tmp_path / "metrics.json"
    atomic_write(path, "old")
    fail_at(monkeypatch, step, 1, errno.ENOSPC)
    with pytest.raises(ResourceError, match="disk is full"):
        atomic_write(path, "new")
    assert path.read_text(encoding="utf-8") == "old"
    assert hidden(tmp_path) == []


def test_text_is_written_with_the_newlines_it_has(tmp_path):
    atomic_write(tmp_path / "a.txt", "µmol/L\n")
    assert (tmp_path / "a.txt").read_bytes() == "µmol/L\n".encode()


def test_json_is_sorted_ends_in_a_newline_and_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"b": 0.1, "a": [None, "µ"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")
    assert read_json(tmp_path / "a.json") == {"b": 0.1, "a": [None, "µ"]}


def test_a_number_that_json_cannot_say_is_refused_and_nothing_is_written(tmp_path):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"auroc": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,', "line 1, column"),
        ('{"a": NaN}', "NaN is not a number"),
        ('{"a": 1, "a": 2}', "a key is repeated"),
        ("[" * 100_000, "nested too deeply|line 1"),
    ],
)
def test_json_is_read_strictly(tmp_path, text, words):
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=words):
        read_json(tmp_path / "a.json")


def test_missing_json_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"a\.json: the file is missing"):
        read_json(tmp_path / "a.json")
