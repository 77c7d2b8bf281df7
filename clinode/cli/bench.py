"""`clinode bench`: methods against truths that are known."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer
from clinode.errors import ArgumentError

if TYPE_CHECKING:
    from clinode.attribution.bench import AttributionBench


class Subject(StrEnum):
    """What is compared."""

    attribution = "attribution"


def bench(
    what: Annotated[Subject, typer.Argument(metavar="WHAT", help="attribution")],
    answer: Answer,
    sets: Annotated[
        str, typer.Option(help='Sets, as "state,spike", of `clinode list`; "all" takes every one.')
    ] = "all",
    methods: Annotated[
        str | None,
        typer.Option(help='Methods, as "saliency,shapley", of `clinode list`.'),
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="New draws of each set.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of the first draw.")] = 0,
    through: Annotated[
        str | None,
        typer.Option(
            help="A model of `clinode list`, fitted to the irregular sets as `fit` does and "
            "explained as `explain` does: how the whole path does."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small sets: shows that all runs, proves nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="CSV or JSON file for the scores of every fold.")
    ] = None,
) -> None:
    """Score attribution methods on sets whose causes are known."""
    from clinode.attribution.bench import DEFAULT_METHODS, SETS, bench_attribution
    from clinode.folder import check_place

    if out is not None:
        if out.suffix.lower() not in (".csv", ".json"):
            raise ArgumentError(f"expected a name in .csv or .json, got {out.name!r}")
        check_place(out)
    found = bench_attribution(
        None if sets == "all" else _words(sets),
        DEFAULT_METHODS if methods is None else _words(methods),
        folds=folds,
        seed=seed,
        quick=quick,
        through=through,
        progress=answer.progress,
    )
    lines = _lines(found, quick, {name: one.about for name, one in SETS.items()})
    if out is not None:
        _write(found, out)
        lines.append(f"Wrote {called(out)}")
    answer.tell(
        {"what": what.value, "quick": quick, "through": through, **found.to_dict(), "out": out},
        lines,
    )


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _lines(found: "AttributionBench", quick: bool, about: dict[str, str]) -> list[str]:
    from clinode.cli.answers import broken_table, terminal_width

    summary = found.summary()
    head = [
        "set", "method", "AUPRC", "sd", "chance", "AUROC", "AUP", "AUR",
        "gap %", "withheld %", "unmeasured %", "rows", "ms/subject", "off by",
    ]  # fmt: skip
    rows = []
    for row in summary.to_dict("records"):
        named = [row["set"], row["method"]]
        if row["why"]:
            rows.append([*named, "refused", *[""] * (len(head) - 3)])
            continue
        scores = [
            _number(row[k], 3) for k in ("auprc", "auprc_sd", "chance", "auroc", "aup", "aur")
        ]
        shares = [_number(100 * row[k], 2) for k in ("gap", "withheld", "unmeasured")]
        costs = [_number(row["rows"], 0), _number(1000 * row["seconds"], 1)]
        off = "" if _is_missing(row["off"]) else f"{row['off']:.0e}"
        rows.append([*named, *scores, *shares, *costs, off])
    lines = broken_table(head, rows, terminal_width())
    lines.append("")
    for family in dict.fromkeys(summary.loc[summary["through"] != "", "through"]):
        lines.append(f"The model is {family}, fitted and explained as clinode does it.")
    for name in dict.fromkeys(summary["set"]):
        facts = next(one.facts for one in found.rows if one.set == name)
        told = "".join(f"; {what} {value:.3f}" for what, value in facts.items())
        lines.append(f"{name}: {about[name]}{told}")
    for why in dict.fromkeys(summary.loc[summary["why"] != "", "why"]):
        lines.append(f"refused: {why}")
    lines.append(
        "Compare by AUPRC; AUP and AUR reward a map that is nearly binary, whatever it knows."
    )
    if quick:
        lines.append("--quick: these numbers show that everything runs, and no more.")
    return lines


def _is_missing(value: float | None) -> bool:
    return value is None or value != value


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or value != value else f"{value:.{digits}f}"


def _write(found: "AttributionBench", path: Path) -> None:
    from clinode.cli.answers import as_json
    from clinode.cli.tables import write_table
    from clinode.folder import atomic_write

    if path.suffix.lower() == ".csv":
        write_table(found.to_pandas().drop(columns="facts"), path)
    else:
        atomic_write(path, as_json(found.to_dict()).encode("utf-8"))
