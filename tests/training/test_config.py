import pytest
import torch

from clinode.errors import ArgumentError
from clinode.training.config import FitConfig, resolve_device


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("epochs", True),
        ("batch_size", -1),
        ("bucket_batches", 0),
        ("patience_epochs", 0),
        ("learning_rate", 0.0),
        ("learning_rate", float("nan")),
        ("gradient_norm", -1.0),
        ("weight_decay", -0.1),
        ("warmup", 1.0),
        ("average_decay", 1.0),
        ("checkpoint_seconds", float("inf")),
    ],
)
def test_a_value_outside_of_its_meaning_is_refused_by_name(name, value):
    with pytest.raises(ArgumentError, match=name):
        FitConfig(**{name: value})


def test_a_misspelt_value_is_refused_with_the_names_there_are():
    with pytest.raises(ArgumentError, match=r"'learnig_rate'.*learning_rate"):
        FitConfig.from_dict({"learnig_rate": 1e-3})


def test_a_configuration_survives_being_written_down():
    config = FitConfig(epochs=3, learning_rate=1e-3)
    assert FitConfig.from_dict(config.to_dict()) == config


def test_saving_more_often_is_not_another_fit():
    assert FitConfig(checkpoint_seconds=0.0).decisive() == FitConfig().decisive()
    assert FitConfig(epochs=9).decisive() != FitConfig().decisive()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_on_a_machine_without_it_is_an_error_and_not_a_silent_cpu():
    with pytest.raises(ArgumentError, match="no CUDA"):
        resolve_device("cuda")
    assert resolve_device("auto") == torch.device("cpu")


def test_an_unknown_device_is_refused():
    with pytest.raises(ArgumentError, match="'gpu'"):
        resolve_device("gpu")
