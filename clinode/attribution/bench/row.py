"""What one method made of one draw of one set."""

from dataclasses import asdict, dataclass
from typing import Any

from clinode.attribution.bench.scores import MapScores

HEADLINES = ("auprc", "auroc", "aup", "aur", "information", "entropy", "top", "chance")
"""Names of the scores of a map."""


@dataclass(frozen=True, kw_only=True)
class BenchRow:
    """One method on one draw of one set.

    Args:
        set, method, fold: What was run.
        scores: Of the map; None where the method refused.
        gap: Median completeness gap, relative to max(|f(x) - f(b)|, 0.1); NaN where the method has
            none.
        withheld: Share of the subjects whose map is withheld.
        unmeasured: Share of |attribution| on cells that nobody measured.
        rows: Median evaluations of the function a subject.
        seconds: A subject, by the clock.
        off: Largest distance from the attributions in closed form; None where there are none.
        facts: Of the set: how well its network predicts.
        why: Why the method refused; empty where it did not.
        through: The family that was fitted and explained; empty for the small network of the set.
    """

    set: str
    method: str
    fold: int
    scores: MapScores | None
    gap: float
    withheld: float
    unmeasured: float
    rows: float
    seconds: float
    off: float | None
    facts: dict[str, float]
    why: str = ""
    through: str = ""

    @classmethod
    def refused(
        cls,
        *,
        set: str,
        method: str,
        fold: int,
        facts: dict[str, float],
        why: str,
        through: str = "",
    ) -> "BenchRow":
        """The row of a method that refused."""
        nan = float("nan")
        return cls(
            set=set, method=method, fold=fold, scores=None, gap=nan, withheld=1.0, unmeasured=nan,
            rows=nan, seconds=nan, off=None, facts=facts, why=why, through=through,
        )  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, the scores among them."""
        plain = asdict(self)
        del plain["scores"]
        scores: dict[str, Any] = dict.fromkeys(HEADLINES)
        if self.scores is not None:
            scores.update(self.scores.to_dict())
        return {**plain, **scores}
