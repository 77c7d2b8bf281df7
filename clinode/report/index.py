"""Page 1 and the table of contents: the facts of the model, each page in a line, the subjects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clinode.attribution import METHODS
from clinode.cohort import Classify
from clinode.report.facts import NOT_PROVIDED
from clinode.report.material import Material
from clinode.report.tables import interval
from clinode.report.wording import percent

FEWEST_EVENTS = 10
FEW = "not shown: fewer than eleven subjects are found, missed, or alerted for nothing"
OF_RISK = ("Evaluated on", "Discrimination", "Calibration", "Alerts")
DOUBTFUL_SHARE = 0.01  # of the maps withheld


def index_page(
    material: Material, pages: Sequence[Mapping[str, Any]], alerts: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the template of the index prints.

    Args:
        material: Of the report.
        pages: One entry a subject page: file, ordinal, percent, output, events, largest, map.
        alerts: `at_threshold` of the whole cohort, each as `Estimate.to_dict()`, or None.
    """
    withheld = sum(page["map"] == "withheld" for page in pages)
    facts = _facts(material, alerts)
    is_risk = isinstance(material.run.task, Classify)
    if not is_risk:  # what such a task is measured by stands on its own page
        facts = [one for one in facts if not one[0].startswith(OF_RISK)]
    blanks = [name for name, value in facts if value is None]
    return {
        "n_subjects": len(material.cohort),
        "n_pages": len(pages),
        "warnings": _warnings(material, withheld, len(pages)),
        "facts": facts,
        "blank_words": f"{len(blanks)} of {len(facts)} entries are {NOT_PROVIDED}."
        if blanks
        else "Every entry is filled.",
        "pages": sorted(pages, key=lambda page: -float(page["output"])),
        "withheld_words": (
            f"{withheld} of {len(pages)} maps are withheld."
            if withheld
            else "Every map passed its checks."
        ),
        "performance_words": _performance(material) if is_risk else "",
        "drift_words": f"{material.drift.verdict[0].upper()}{material.drift.verdict[1:]}.",
    }


def _facts(material: Material, alerts: Mapping[str, Any] | None) -> list[tuple[str, str | None]]:
    run, said = material.run, material.facts.said
    schema = run.schema
    told = material.evaluation or {}
    name = said("name")
    version = f", version {said('version')}" if said("version") else ""
    kind = f"{type(run.model).__name__}, {run.n_parameters:,} weights, SHA-256 "
    kind += run.weights_sha256[:16]
    frequency = material.training_frequency
    share = "" if frequency is None else f", {percent(frequency)} of them with the outcome"
    at = percent(material.threshold[0])
    return [
        ("Model", f"{name}{version}; {kind}" if name else f"{kind}{version}"),
        ("Outcome and horizon", " ".join(filter(None, [f"{material.outcome}.", said("outcome"),
         f"From up to {schema.window:g} h before the prediction time."]))),
        ("Intended use", said("intended_use")),
        ("Intended users", said("intended_users")),
        ("When not to use", said("when_not_to_use")),
        ("Population", said("target_population")),
        ("Trained on", f"{schema.n_subjects:,} subjects{share}; {len(schema.variables)} variables"),
        ("Sites and years", said("sites_and_years")),
        ("Evaluated on", _evaluated(material)),
        ("Discrimination", f"AUROC {interval(told['auroc'])}, AUPRC {interval(told['auprc'])}"
         if "auroc" in told else None),
        ("Calibration", f"slope {interval(told['calibration_slope'], digits=2)}, intercept "
         f"{interval(told['calibration_intercept'], digits=2)}, expected error "
         f"{interval(told['ece'])}" if "ece" in told else None),
        (f"Alerts at a risk of {at}",
         f"sensitivity {interval(alerts['sensitivity'], digits=2)}, of the alerts right "
         f"{interval(alerts['ppv'], digits=2)}; {material.threshold[1]}"
         if alerts is not None else FEW if told else None),
        ("External validation", said("external_validation")),
        ("Last checked", said("last_check")),
        ("Explained by", f"{METHODS[material.attributions.method]}, relative to "
         f"{material.baseline}"),
        ("Contact", said("contact")),
    ]  # fmt: skip


def _evaluated(material: Material) -> str | None:
    told = material.evaluation
    if told is None:
        return None
    words = f"{told['n_subjects']:,} subjects, {told['n_records']:,} predictions"
    seen = told.get("n_trained_on", 0)
    if seen:
        words += f"; {seen:,} of the subjects took part in the fit"
    return words


def _warnings(material: Material, withheld: int, n_pages: int) -> list[str]:
    found = []
    if n_pages and withheld / n_pages >= DOUBTFUL_SHARE:
        found.append(f"{withheld} of {n_pages} attribution maps did not pass their checks.")
    n_events = int(material.observed.sum())
    if material.scored is not None and (
        min(n_events, len(material.observed) - n_events) < FEWEST_EVENTS
    ):
        found.append("Fewer than ten subjects with, or without, the outcome: intervals are wide.")
    seen = (material.evaluation or {}).get("n_trained_on")
    if seen:
        found.append(
            "Subjects of this cohort took part in the fit: performance on these pages is too good."
        )
    large = np.array(material.drift.to_pandas()["verdict"] == "large shift").sum()
    if large:
        word = "shift" if large == 1 else "shifts"
        found.append(f"{large} large {word} from the training part: see data and drift.")
    return found


def _performance(material: Material) -> str:
    told = material.evaluation
    if told is None:
        return "Not provided: this cohort carries no outcomes to compare with."
    baselines = told.get("baselines", {})
    best = [
        interval(held["auroc"])
        for held in baselines.values()
        if isinstance(held.get("auroc"), Mapping) and held["auroc"]["value"] is not None
    ]
    words = f"AUROC {interval(told['auroc'])}"
    if best:
        top = max(
            (held["auroc"]["value"], name)
            for name, held in baselines.items()
            if held.get("auroc", {}).get("value") is not None
        )
        words += f"; the best trivial baseline reaches {top[0]:.3f}"
    return words + f". Calibration slope {interval(told['calibration_slope'], digits=2)}."
