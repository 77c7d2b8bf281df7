"""`clinode similarity`: how alike representations are, and which model does best."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clinode.cli.answers import called
from clinode.cli.options import Answer
from clinode.errors import ArgumentError, SchemaError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from clinode.similarity import RDM, ModelRanking, PairwiseComparisons

STIMULUS = "stimulus"  # the column that names stimuli


def similarity(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="CSV, NPY or Parquet, one row a stimulus; a column 'stimulus' holds its names.",
        ),
    ],
    answer: Answer,
    subject: Annotated[
        list[Path] | None,
        typer.Option(help="A file of a subject, two or more: then FILEs are models of them."),
    ] = None,
    rdms: Annotated[
        bool, typer.Option("--rdms", help="Files hold dissimilarities, stimulus by stimulus.")
    ] = False,
    dissimilarity: Annotated[
        str, typer.Option(help="Of two patterns: euclidean (squared) or correlation.")
    ] = "euclidean",
    method: Annotated[
        str,
        typer.Option(help="Cosine, corr, spearman, rho-a, tau-a, cosine_cov or corr_cov."),
    ] = "corr",
    resample: Annotated[
        str, typer.Option(help="With subjects, intervals are over stimuli, subjects or both.")
    ] = "both",
    resamples: Annotated[int, typer.Option(min=1, help="How many.")] = 1000,
    figure: Annotated[
        Path | None, typer.Option(help="PNG or SVG file for a plot of the likeness.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the resamples.")] = 0,
) -> None:
    """Compare representations in pairs, or models with subjects below their noise ceiling."""
    from clinode.folder import check_place
    from clinode.similarity import compare_pairs, rank_models

    if figure is not None:
        if figure.suffix.lower() not in (".png", ".svg"):
            raise ArgumentError(f"expected a name in .png or .svg, got {figure.name!r}")
        check_place(figure)
    if dissimilarity not in ("euclidean", "correlation"):
        raise ArgumentError(f"--dissimilarity is euclidean or correlation, got {dissimilarity!r}")
    people = subject or []
    if not people and len(files) < 2:
        raise ArgumentError(
            "there is one file, and nothing to compare it with",
            fix="give another, or files of subjects by --subject",
        )
    measure = None if rdms else dissimilarity
    models = {name: _read(path, measure) for name, path in _named(files).items()}
    known = {name: _read(path, measure) for name, path in _named(people).items()}
    answer.progress(f"drawing {resamples:,} resamples")
    if people:
        ranking = rank_models(
            models, list(known.values()), method.lower(),
            resample=resample, n_resamples=resamples, seed=seed,
        )  # fmt: skip
        result, lines = ranking.to_dict(), _ranking_lines(ranking)
    else:
        ranking = compare_pairs(models, method.lower(), n_resamples=resamples, seed=seed)
        result, lines = ranking.to_dict(), _pair_lines(ranking)
    if figure is not None:
        _write(_drawn(ranking), figure)
        lines.append(f"Wrote {called(figure)}")
    answer.tell({**result, "figure": figure}, lines)


def _named(files: list[Path]) -> dict[str, Path]:
    named = {path.stem: path for path in files}
    if len(named) < len(files):
        raise ArgumentError("two files have the same name", fix="names tell them apart: rename one")
    return named


def _read(path: Path, measure: str | None) -> "RDM":
    """The RDM in a file, or of the patterns in it."""
    from clinode.similarity import rdm, rdm_from_vector

    values, labels = _array(path)
    try:
        if measure is not None:
            return rdm(values, method=measure, labels=labels)
        return rdm_from_vector(values, labels=labels)
    except ArgumentError as wrong:
        raise SchemaError(str(wrong), where=path.name) from wrong


def _array(path: Path) -> "tuple[np.ndarray, list[str] | None]":
    import numpy as np
    import pandas as pd

    from clinode.cohort.columns import shown_columns

    if not path.is_file():
        raise SchemaError("there is no such file", where=path.name)
    ending = path.suffix.lower()
    if ending not in (".csv", ".npy", ".parquet"):
        raise ArgumentError(f"expected a name in .csv, .npy or .parquet, got {path.name!r}")
    try:
        if ending == ".npy":
            return np.load(path, allow_pickle=False).astype(np.float64), None
        table = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path)
        if ending == ".csv" and all(_is_number(name) for name in table.columns):
            table = pd.read_csv(path, header=None)  # its first row is data
    except (ValueError, OSError, EOFError) as wrong:
        raise SchemaError("it cannot be read as a table of numbers", where=path.name) from wrong
    labels = None
    if STIMULUS in table.columns:
        labels = [str(name) for name in table.pop(STIMULUS)]
    called = shown_columns([str(name) for name in table.columns])
    for name, shown in zip(table.columns, called, strict=True):
        if not pd.api.types.is_numeric_dtype(table[name]):
            raise SchemaError(
                f"column {shown!r} holds text",
                where=path.name,
                fix=f"a column of names is called {STIMULUS!r}",
            )
    return table.to_numpy(dtype=np.float64, copy=True), labels


def _is_number(text: object) -> bool:
    try:
        float(str(text))
    except ValueError:
        return False
    return True


def _pair_lines(found: "PairwiseComparisons") -> list[str]:
    from clinode.cli.answers import interval, table

    rows = [
        (first, second, interval(one.to_dict()), str(compared.n_pairs), str(compared.n_left_out))
        for ((first, second), one), compared in zip(
            found.intervals.items(), found.comparisons.values(), strict=True
        )
    ]
    head = ["first", "second", f"likeness ({found.method})", "pairs", "left out"]
    return [
        *table(head, rows),
        "",
        f"Intervals of 95 % are over {found.n_stimuli} stimuli. A noise ceiling needs two or more "
        "subjects (--subject).",
    ]


def _ranking_lines(found: "ModelRanking") -> list[str]:
    from clinode.cli.answers import interval, table

    ceiling = found.ceiling
    order = found.to_pandas()["model"]
    rows = [
        (
            name,
            interval(found.estimates[name].to_dict()),
            "yes" if name in found.contenders else "no",
            "yes" if found.estimates[name].value >= ceiling.lower else "no",
        )
        for name in order
    ]
    head = ["model", f"likeness ({ceiling.method})", "may be the best", "reaches the ceiling"]
    over = "stimuli and subjects" if found.resampled == "both" else found.resampled
    return [
        *table(head, rows),
        "",
        f"Noise ceiling of {ceiling.n_subjects} subjects: {ceiling.lower:.3f} to "
        f"{ceiling.upper:.3f}. Intervals of 95 % are over {over}.",
    ]


def _drawn(found: Any) -> "Figure":
    from clinode.figures.similarity import model_ranking_figure, pairs_figure
    from clinode.similarity import ModelRanking

    return model_ranking_figure(found) if isinstance(found, ModelRanking) else pairs_figure(found)


def _write(drawn: "Figure", path: Path) -> None:
    import io

    from clinode.folder import atomic_write

    held = io.BytesIO()
    drawn.savefig(held, format=path.suffix[1:].lower(), dpi=150)
    atomic_write(path, held.getvalue())
