"""A fit that starts from the weights of another run: pretraining on forecasting, say.

What reads the records is taken over, and with it the scales on which it reads them; the head, which
answers the task, is new. The two runs are of one family and of one size, and know the same
variables, treatments and statics.
"""

from dataclasses import replace

import torch

from clinode.cohort import Preprocessor
from clinode.errors import ArgumentError
from clinode.sequence import SequenceModel
from clinode.training.run import Run

OWN = ("head.", "behind.", "latent_low", "latent_high")  # of a run, not taken over
_READ = ("variables", "statics", "inputs")
_SCALES = ("transform", "low", "high", "mean", "center", "scale", "input_scale", "input_is_rate")


def scaled_like(schema: Preprocessor, source: Run) -> Preprocessor:
    """The schema of a training part, on the scales of the run that the fit starts from.

    Raises:
        ArgumentError: The run knows other variables, treatments or statics; names them.
    """
    for kind in _READ:
        here = [_name(part) for part in getattr(schema, kind)]
        there = [_name(part) for part in getattr(source.schema, kind)]
        if here != there:
            other = sorted({*here} ^ {*there}) or here
            raise ArgumentError(
                f"start_from: its {kind} are not those of this training part "
                f"({len(other)} differ, such as {other[0]!r})",
                fix="pretrain on a cohort with the same schema",
            )
    held = {name: getattr(source.schema, name) for name in (*_SCALES, "statics")}
    return replace(schema, **held)


def take_weights(model: SequenceModel, source: Run) -> None:
    """Give a built model the weights of a run, but for those of its head.

    Raises:
        ArgumentError: The run is of another family, or of other sizes.
    """
    if model.name != source.model.name:
        raise ArgumentError(
            f"start_from: it holds a {source.model.name}, and this model is a {model.name}",
            fix="start from a run of the same family",
        )
    own = model.state_dict()
    taken = {k: v for k, v in source.model.state_dict().items() if not k.startswith(OWN)}
    expected = {k: v.shape for k, v in own.items() if not k.startswith(OWN)}
    wrong = sorted(k for k in {*taken, *expected} if _shape(taken.get(k)) != expected.get(k))
    if wrong:
        raise ArgumentError(
            f"start_from: {len(wrong)} of its weights have another size here, such as {wrong[0]!r}",
            fix="give the model the settings of that run: see its config.yaml",
        )
    with torch.no_grad():
        for name, value in taken.items():
            own[name].copy_(value)


def _shape(value: torch.Tensor | None) -> torch.Size | None:
    return None if value is None else value.shape


def _name(part: object) -> str:
    level = getattr(part, "level", None)
    name = str(getattr(part, "name", part))
    return name if level is None else f"{name}={level}"
