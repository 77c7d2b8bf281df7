"""`clinode list`: what there is to choose from."""

from clinode.cli.options import Answer

DELETE = "Never measured; only for methods that leave events out."


def overview(answer: Answer) -> None:
    """List the models, systems, readers, attribution methods, baselines and benchmark sets."""
    from clinode.attribution import BASELINES, METHODS
    from clinode.attribution.bench import SETS
    from clinode.cli.answers import table
    from clinode.cli.systems import known_systems
    from clinode.cohort import FORMATS
    from clinode.sequence import MODELS

    rows = [
        (kind, name, _first_line(thing))
        for kind, table_of in (
            ("model", MODELS),
            ("system", known_systems()),
            ("reader", FORMATS),
            ("method", METHODS),
            ("set", {name: one.about for name, one in SETS.items()}),
            ("baseline", {**BASELINES, "delete": DELETE}),
        )
        for name, thing in table_of.items()
    ]
    result: dict[str, list[dict[str, str]]] = {}
    for kind, name, words in rows:
        result.setdefault(f"{kind}s", []).append({"name": name, "about": words})
    answer.tell(result, table(["kind", "name", "about"], rows))


def _first_line(thing: object) -> str:
    return (thing if isinstance(thing, str) else thing.__doc__ or "").strip().split("\n")[0]
