import dataclasses
import errno
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clinode.errors import CheckpointError, ResourceError
from clinode.training import checkpoint
from clinode.training.checkpoint import (
    FitState,
    list_checkpoints,
    load_latest_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)


def a_state(step: int = 3) -> FitState:
    generator = torch.Generator().manual_seed(step)
    draw = {"weight": torch.randn(4, 3, generator=generator)}
    return FitState(
        weights=draw,
        average={"weight": draw["weight"] * 0.5},
        best={"weight": draw["weight"] * 0.25},
        moments={"exp_avg/weight": draw["weight"] ** 2, "step/weight": torch.tensor(float(step))},
        step=step,
        epochs_done=2,
        best_loss=0.1 + 0.2,
        best_epoch=1,
        loss_sum=1 / 3,
        norm_sum=2 / 3,
        curve=[{"epoch": 1, "train_loss": 1 / 7, "tune_loss": None}],
    )


def assert_same(found: object, expected: object) -> None:
    if isinstance(expected, dict) and any(isinstance(v, torch.Tensor) for v in expected.values()):
        assert isinstance(found, dict)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    else:
        assert found == expected


def test_every_field_of_the_state_survives_being_saved(tmp_path):
    state = a_state()
    for field in dataclasses.fields(state):  # a state of defaults would prove nothing
        assert getattr(state, field.name) not in (None, {}, [], 0, 0.0), field.name
    save_checkpoint(tmp_path, state, identity="call")
    found, refused = load_latest_checkpoint(tmp_path, identity="call")
    assert refused == []
    for field in dataclasses.fields(state):
        assert_same(getattr(found, field.name), getattr(state, field.name))


def test_only_the_last_two_checkpoints_are_kept(tmp_path):
    for step in (9, 10, 100, 101):
        save_checkpoint(tmp_path, a_state(step), identity="call")
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000101", "step-00000100"]


def test_a_step_that_is_saved_twice_is_replaced(tmp_path):
    save_checkpoint(tmp_path, a_state(5), identity="call")
    state = a_state(5)
    state.epochs_done = 3
    save_checkpoint(tmp_path, state, identity="call")
    found, _ = load_latest_checkpoint(tmp_path, identity="call")
    assert found is not None
    assert found.epochs_done == 3


def flip_one_bit(file: Path, position: float) -> None:
    content = bytearray(file.read_bytes())
    content[min(int(position * len(content)), len(content) - 1)] ^= 0b100
    file.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "emptied", "removed"])
@pytest.mark.parametrize(
    "file", ["weights.safetensors", "moments.safetensors", "state.json", "manifest.json"]
)
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before_and_this_is_told(
    tmp_path, file, damage
):
    for step in (1, 2):
        save_checkpoint(tmp_path, a_state(step), identity="call")
    victim = tmp_path / "step-00000002" / file
    if damage == "truncated":
        victim.write_bytes(victim.read_bytes()[:-7])
    elif damage == "emptied":
        victim.write_bytes(b"")
    elif damage == "removed":
        victim.unlink()
    else:
        flip_one_bit(victim, 0.6)
    found, refused = load_latest_checkpoint(tmp_path, identity="call")
    assert found is not None
    assert found.step == 1
    assert len(refused) == 1
    assert "step-00000002" in refused[0]


@pytest.mark.parametrize("position", [k / 40 for k in range(41)])
def test_no_flipped_bit_is_ever_loaded(tmp_path, position):
    save_checkpoint(tmp_path, a_state(1), identity="call")
    flip_one_bit(tmp_path / "step-00000001" / "weights.safetensors", position)
    found, refused = load_latest_checkpoint(tmp_path, identity="call")
    assert found is None
    assert len(refused) == 1


def test_a_checkpoint_of_another_call_is_refused(tmp_path):
    save_checkpoint(tmp_path, a_state(), identity="call")
    with pytest.raises(CheckpointError, match="another call"):
        load_latest_checkpoint(tmp_path, identity="other")


def test_a_full_disk_keeps_the_earlier_checkpoint_and_leaves_nothing_behind(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, a_state(1), identity="call")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def full(self, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(ResourceError, match="disk is full"):
            save_checkpoint(tmp_path, a_state(2), identity="call")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    found, refused = load_latest_checkpoint(tmp_path, identity="call")
    assert found is not None
    assert found.step == 1
    assert refused == []


def test_what_is_no_tensor_file_is_refused_in_words(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x80\x04K\x01.")  # a pickle
    with pytest.raises(CheckpointError, match="does not hold tensors"):
        load_tensors(tmp_path / "model.safetensors")


def test_tensors_of_equal_content_have_equal_bytes_in_every_process(tmp_path):
    about = {str(k): k for k in range(9)}
    save_tensors(tmp_path / "a", {"x": torch.ones(3), "y": torch.zeros(2, 2)}, about)
    program = (
        "import importlib.util, sys, torch; from pathlib import Path;"
        "spec = importlib.util.spec_from_file_location('checkpoint', sys.argv[1]);"
        "module = importlib.util.module_from_spec(spec); sys.modules['checkpoint'] = module;"
        "spec.loader.exec_module(module);"
        "module.save_tensors(Path(sys.argv[2]), {'y': torch.zeros(2, 2), 'x': torch.ones(3)},"
        " {str(k): k for k in reversed(range(9))})"
    )  # the file by itself: the package around it takes seconds to import
    call = [sys.executable, "-c", program, checkpoint.__file__, str(tmp_path / "b")]
    subprocess.run(call, check=True)
    digests = {hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in "ab"}
    assert len(digests) == 1


def test_views_of_one_storage_are_stored_apart(tmp_path):
    whole = torch.arange(6.0).reshape(2, 3)
    save_tensors(tmp_path / "views", {"row": whole[0], "column": whole[:, 1], "all": whole})
    found = load_tensors(tmp_path / "views")
    assert torch.equal(found["column"], torch.tensor([1.0, 4.0]))
    assert torch.equal(found["all"], whole)
