"""`clinode convert`: any layout that clinode reads, written as MEDS."""

from pathlib import Path
from typing import Annotated

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer, Data
from clinode.errors import ArgumentError


def convert(
    data: Data,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The MEDS folder to be written.")],
    answer: Answer,
    shard: Annotated[
        str, typer.Option(help="Convert part i of n alone; the last one makes OUT.")
    ] = "1/1",
    name: Annotated[
        str | None, typer.Option(help="Of the data set; that of DATA if left out.")
    ] = None,
) -> None:
    """Write a data set as MEDS, in one go or shard by shard on several machines.

    A shard is there whole or not at all, and the same command again changes nothing. Shards lie in
    OUT.unfinished until all of them are there.
    """
    from clinode.cohort.convert import convert as carry_out
    from clinode.cohort.shard import Shard

    if data.task_file is not None:
        raise ArgumentError(
            "convert writes a data set as it is, without the outcomes of a --task-file",
            fix="give the task file to check, fit, evaluate or predict",
        )
    wanted = Shard.parse(shard)
    answer.progress(f"converting shard {wanted} of {data.data.name}")
    done = carry_out(data.data, out, shard=wanted, name=name, options=data.told())
    lines = [f"Shard {wanted}: {done.n_subjects:,} subjects, {done.n_events:,} events."]
    if done.is_whole:
        lines.append(f"Wrote {called(out)}, whole. Next: clinode check {called(out)}")
    else:
        left = ", ".join(f"{number}/{wanted.total}" for number in done.missing[:20])
        more = " ..." if len(done.missing) > 20 else ""
        lines.append(f"Still to be converted before {called(out)} is made: {left}{more}")
    answer.tell(done.to_dict(), [*lines, "", *_ledger(done.ledger.to_pandas().values.tolist())])


def _ledger(rows: list[list[object]]) -> list[str]:
    from clinode.cli.answers import table

    return table(["table", "action", "reason", "rows"], rows)
