"""Which models, and which families of them, look like human inferior temporal cortex.

    python scripts/benchmarks/it_models.py --data DIR [--resamples 1000] [--figure PNG]

DIR/images92_rdms/rdms.npz holds dissimilarities of 92 images of objects: inferior temporal cortex
of four people in two sessions and of monkeys, models, and judgements of sixteen people
(Kriegeskorte et al. 2008, Neuron 60:1126-1141; Mur et al. 2013, Front. Psychol. 4:128). The file's
"EVA" is human early visual cortex: no model, and recorded as the cortex to be explained was.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from clinode.figures import model_ranking_figure
from clinode.similarity import (
    RDM,
    ModelRanking,
    compare,
    mixture_weights,
    rank_families,
    rank_models,
    rdm_from_vector,
)

PEOPLE, SESSIONS, JUDGES = range(1, 5), (1, 2), range(1, 17)
FAMILIES = {
    "categories": ("animacy", "FaceBodyManmadeNatobj"),
    "monkey cortex": ("monkeyIT",),
    "early visual cortex": ("EVA",),
    "HMAX": ("HMAX", "HMAX_natural_patches"),
    "pixels and filters": ("V1", "RADON", "Silhouette"),
}


def main():
    """Print what was published and found again, then both rankings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with images92_rdms")
    parser.add_argument("--resamples", type=int, default=1000)
    parser.add_argument("--method", default="rho-a", help="of comparison, as in rank_models")
    parser.add_argument("--figure", type=Path, help="PNG of the ranking of models")
    args = parser.parse_args()
    with np.load(args.data / "images92_rdms" / "rdms.npz") as stored:
        given = {name: stored[name] for name in stored.files}
    people = {person: both_sessions(given, person) for person in PEOPLE}
    models = {
        name: rdm_from_vector(given[f"model_{name}"]) for f in FAMILIES.values() for name in f
    }
    judged = {f"judge {k}": rdm_from_vector(given[f"judgement_subject{k:02d}"]) for k in JUDGES}
    print_published(people, models, judged)

    began = time.perf_counter()
    models["judgements, mean"] = mean_of(judged.values())
    ranking = rank_models(models, list(people.values()), args.method, n_resamples=args.resamples)
    print_ranking("models", ranking, time.perf_counter() - began)
    families = {
        family: {name: models[name] for name in names} for family, names in FAMILIES.items()
    }
    families["judgements, mixed"] = judged
    families["HMAX, pixels and filters"] = families["HMAX"] | families["pixels and filters"]
    families["categories and monkey cortex"] = families["categories"] | families["monkey cortex"]
    began = time.perf_counter()
    mixed = rank_families(families, list(people.values()), args.method, n_resamples=args.resamples)
    print_ranking(
        "families, on images and people not fitted to", mixed, time.perf_counter() - began
    )
    best = mixture_weights(families["categories and monkey cortex"], list(people.values()))
    print("weights:", ", ".join(f"{name} {weight:.2f}" for name, weight in best.items()))
    if args.figure is not None:
        model_ranking_figure(ranking).savefig(args.figure, dpi=150)


def both_sessions(given: dict[str, np.ndarray], person: int) -> RDM:
    """Mean of a person's two sessions."""
    parts = [given[f"human_IT_subject{person}_session{session}"] for session in SESSIONS]
    return rdm_from_vector(np.mean(parts, axis=0, dtype=np.float64))


def mean_of(rdms) -> RDM:
    """Mean of RDMs of one size."""
    values = [one.dissimilarities.numpy() for one in rdms]
    return rdm_from_vector(np.mean([x / np.sqrt((x**2).mean()) for x in values], axis=0))


def print_published(people: dict[int, RDM], models: dict[str, RDM], judged: dict[str, RDM]) -> None:
    """Correlations of means over people, beside what the papers say."""
    human, judgement = mean_of(people.values()), mean_of(judged.values())
    apart = {
        "human cortex and monkey cortex": (human, models["monkeyIT"]),
        "human cortex and human judgements": (human, judgement),
        "human judgements and early visual cortex": (judgement, models["EVA"]),
        "human judgements and V1 model": (judgement, models["V1"]),
    }
    for name, (first, second) in apart.items():
        print(f"{name:42s} r {compare(first, second, 'corr').value:.3f}")


def print_ranking(title: str, ranking: ModelRanking, seconds: float) -> None:
    """Best first, with intervals and the ceiling."""
    ceiling = ranking.ceiling
    print(f"\n{title} ({ceiling.method}): ceiling {ceiling.lower:.3f} to {ceiling.upper:.3f}")
    for row in ranking.to_pandas().to_dict("records"):
        mark = "  not told from the best" if row["is_contender"] else ""
        likeness = f"{row['likeness']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        print(f"  {row['model']:30s} {likeness}{mark}")
    print(f"  {seconds:.0f} s")


if __name__ == "__main__":
    main()
