"""What a study of muscle at L3 adds to the scores of its segmentation: biomarkers, sarcopenia and survival.

Patients stay at their site (`biomarkers.csv`, `report.html`); the coordinator gets sums over persons.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.body_composition import CutOff, body_mass_index, decision, measure, panels
from models.body_composition.origin import Origin
from models.body_composition.report import site_report, write_private
from models.body_composition.tables import table
from models.body_composition.whole_scans import Measuring, Scans, segmenting
from models.level_finder import find_level

TISSUES = ("muscle", "subcutaneous_fat", "visceral_fat")
MEASURED = ("muscle_area_cm2", "muscle_density_hu", "subcutaneous_fat_cm2", "visceral_fat_cm2")
ERRORS = {  # by column of what is measured in whole scans, the metric that is its mean absolute error
    "muscle_index": "test/pooled/index_mae",
    **{name: f"test/pooled/{name}_mae" for name in MEASURED},
}
UNITS = {
    **{"index_mae": "cm2/m2", "index_bias": "cm2/m2", "density_bias": "HU"},
    **{f"{name}_mae": "HU" if name.endswith("_hu") else "cm2" for name in MEASURED},
}
KNOWN = ("height_m", "weight_kg", "age", "sex", "followup_days", "event")
Arrays = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Case:
    """One person measured: the row for the site's table, and what is needed to show the person in its report."""

    row: dict[str, Any]
    hu: NDArray[np.float32]
    predicted: NDArray[np.int64]
    reference: NDArray[np.int64]


class BodyCompositionOutcomes:
    """Biomarkers of a segmentation against those of the labels.

    `module` has `segment(batch) -> [B, P, P]` with the classes of `models.body_composition`; `datamodule` gives test
    batches as `datamodules.ct_slices`, `accessions`, `skipped_accessions`, `series` and `synthetic`.

    Args:
        cut_off: the definition of sarcopenia.
        bin_days: width of the bins in which deaths and censorings are counted, days.
        bins: their number; what lies beyond is counted in the last.
    """

    units = UNITS

    def __init__(self, cut_off: CutOff, bin_days: float = 180.0, bins: int = 12) -> None:
        if bin_days <= 0 or bins < 1:
            raise ValueError("bin_days has to be positive and bins at least 1")
        self.cut_off, self.bin_days, self.bins = cut_off, bin_days, bins

    def collect(self, module: Any, datamodule: Any, folder: Path) -> dict[str, NDArray[np.float64]]:
        """Measure the test persons, write the site's own table and report into `folder`, return sums over persons.

        `moments/dice` [tissue, 3], `moments/index_difference` (predicted - reference, cm2/m2), `moments/index_error`
        (its absolute value), `moments/errors` [quantity, 3] (absolute differences of `MEASURED`),
        `moments/density_difference` (HU): number, sum, sum of squares. `count/sarcopenia`
        [reference, predicted]. `histogram/survival` [not low, low by the prediction][censored, died][bin].
        """
        cases = list(self._cases(module, datamodule))
        rows = [case.row for case in cases]
        write_private(folder / "biomarkers.csv", table(rows))
        report = site_report(
            cases,
            self.cut_off,
            skipped=datamodule.skipped_accessions,
            series=datamodule.series.lines,
            synthetic=bool(datamodule.synthetic),
            tissues=TISSUES,
        )
        write_private(folder / "report.html", report)
        column = {
            name: np.array([row[name] for row in rows], float)
            for name in (rows[0] if rows else {})
            if name != "accession_id"
        }
        return self._summaries(column) if rows else {}

    @torch.no_grad()
    def _cases(self, module: Any, datamodule: Any) -> Iterator[Case]:
        module.eval()
        device = next(module.parameters()).device
        for batch in datamodule.test_dataloader():
            masks = module.segment({name: value.to(device) for name, value in batch.items()}).cpu()
            for k in range(len(masks)):
                one = {name: value[k].numpy() for name, value in batch.items()}
                yield self._case(datamodule.accessions[int(one["index"])], one, masks[k].numpy())

    def _case(self, accession: str, one: Mapping[str, NDArray[Any]], predicted: NDArray[np.int64]) -> Case:
        size = {"pixel_area_cm2": float(one["pixel_area_cm2"]), "height_m": float(one["height_m"])}
        row: dict[str, Any] = {"accession_id": accession, **{name: float(one[name]) for name in KNOWN}}
        row |= measure(predicted, one["hu"], **size).as_row("predicted_")
        row |= measure(one["label"], one["hu"], **size).as_row("reference_")
        # The labels' own areas, from before a large plane was thinned out.
        areas = one["reference_area_cm2"].astype(float)
        row |= dict(
            zip(
                ("reference_muscle_area_cm2", "reference_subcutaneous_fat_cm2", "reference_visceral_fat_cm2"),
                areas,
                strict=True,
            )
        )
        row["reference_muscle_index"] = row["reference_muscle_area_cm2"] / size["height_m"] ** 2
        for which in ("predicted", "reference"):
            low = self.cut_off.low(row[f"{which}_muscle_index"], row["sex"], body_mass_index(row))
            row[f"{which}_sarcopenia"] = float(low)
        for tissue, name in enumerate(TISSUES, start=1):
            row[f"dice_{name}"] = dice(predicted == tissue, one["label"] == tissue)
        return Case(row, one["hu"], predicted, one["label"])

    def predict(
        self,
        module: Any,
        data: Scans,
        folder: Path,
        *,
        companions: Mapping[str, Any] | None = None,
        scores: Mapping[str, float] | None = None,
        digest: str = "",
    ) -> None:
        """Measure whole scans that nobody has labeled, and write what is found into `folder`, for the site alone.

        `data` as `datamodules.ct_scans` has it. `companions`: `level`, a `models.level_finder.LevelFinder` that looks
        for L3 where no reader says where it is. `scores` and `digest` are those of the module. See
        `models.body_composition.whole_scans`.
        """
        errors = {name: scores[metric] for name, metric in ERRORS.items() if metric in scores} if scores else {}
        finder = (companions or {}).get("level")
        find = None if finder is None else partial(find_level, finder)
        origin = Origin(version=digest[:12] or "unknown", errors=errors)
        Measuring(segmenting(module), find, self.cut_off, origin).write(data, folder)

    def _summaries(self, column: Arrays) -> dict[str, NDArray[np.float64]]:
        difference = column["predicted_muscle_index"] - column["reference_muscle_index"]
        low, truth = column["predicted_sarcopenia"], column["reference_sarcopenia"]
        survival = np.zeros((2, 2, self.bins))
        known = ~np.isnan(low + column["followup_days"] + column["event"])
        when = np.minimum(column["followup_days"][known] // self.bin_days, self.bins - 1).astype(int)
        np.add.at(survival, (low[known].astype(int), column["event"][known].astype(int), when), 1)
        return {
            "moments/dice": np.stack([moments(column[f"dice_{name}"]) for name in TISSUES]),
            "moments/index_difference": moments(difference),
            "moments/index_error": moments(np.abs(difference)),
            "moments/errors": np.stack(
                [moments(np.abs(column[f"predicted_{name}"] - column[f"reference_{name}"])) for name in MEASURED]
            ),
            "moments/density_difference": moments(
                column["predicted_muscle_density_hu"] - column["reference_muscle_density_hu"]
            ),
            "count/sarcopenia": np.array([[np.sum((truth == r) & (low == p)) for p in (0, 1)] for r in (0, 1)], float),
            "histogram/survival": survival,
        }

    def metrics(self, by_site: Mapping[str, Arrays]) -> dict[str, float]:
        """`test/site/<site>/...` and `test/pooled/...`: `index_mae`, `index_bias` (cm2/m2), `density_bias` (HU),
        `QUANTITY_mae` of MEASURED,
        `sarcopenia_sensitivity`, `sarcopenia_specificity`, `prevalence_predicted` and `prevalence_reference`; what no
        person stands behind is left out."""
        named = {
            **{f"test/site/{site}": arrays for site, arrays in by_site.items()},
            "test/pooled": panels.pooled(by_site),
        }
        sources = {
            "index_mae": "moments/index_error",
            "index_bias": "moments/index_difference",
            "density_bias": "moments/density_difference",
        }
        found = {}
        for prefix, arrays in named.items():
            for name, source in sources.items():
                if source in arrays and arrays[source][0] > 0:
                    found[f"{prefix}/{name}"] = float(arrays[source][1] / arrays[source][0])
            for name, (number, total, _) in zip(MEASURED, arrays.get("moments/errors", ()), strict=False):
                found |= {f"{prefix}/{name}_mae": float(total / number)} if number > 0 else {}
            found |= {f"{prefix}/{name}": value for name, value in decision.metrics(arrays).items()}
        return found

    def panels(self, by_site: Mapping[str, Arrays]) -> list[dict[str, Any]]:
        """Figures and tables of the coordinator's report, made of sums over persons alone."""
        return [
            panels.dice_panel(by_site, TISSUES),
            panels.agreement_panel(by_site),
            decision.panel([*by_site.items(), (panels.POOLED, panels.pooled(by_site))], self.cut_off),
            panels.prevalence_panel(by_site, self.cut_off),
            panels.survival_panel(by_site, self.cut_off, self.bin_days),
        ]


def dice(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks, NaN where both are empty."""
    size = int(ours.sum()) + int(theirs.sum())
    return 2 * int((ours & theirs).sum()) / size if size else float("nan")


def moments(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[number, sum, sum of squares] of the values that are known."""
    known = values[~np.isnan(values)]
    return np.array([len(known), known.sum(), np.square(known).sum()])
