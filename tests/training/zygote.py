"""Forks a process per fit that is asked for, so that each can be killed within milliseconds.

Reads lines "OUT" from the standard input, answers with the id of a forked process that fits into
OUT, and, once that one ended, with its exit status.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from small_cohort import make_cohort

from clinode.cohort import Classify
from clinode.errors import ClinodeError
from clinode.sequence import LinearLatentODE
from clinode.training import FitConfig, fit


def main() -> None:
    train, tune = make_cohort(80, seed=0), make_cohort(40, seed=2, first_id=9001)
    print("ready", flush=True)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os._exit(_fit(train, tune, Path(line.rstrip("\n"))))
        print(process, flush=True)
        _, status = os.waitpid(process, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _fit(train, tune, out: Path) -> int:
    model = LinearLatentODE(latent=3, hidden=6, statistics_hidden=6, head_hidden=8, static_code=4)
    config = FitConfig(epochs=2, batch_size=16, bucket_batches=2, checkpoint_seconds=0.0)
    task = Classify("died", at=48.0)
    try:
        fit(model, train, tune, task=task, out=out, config=config, progress=False)
    except ClinodeError as error:
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    main()
