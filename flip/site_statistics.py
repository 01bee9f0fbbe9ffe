"""What a site tells before the first round besides its sizes: summaries that the dataset wants agreed over sites."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from flip.federation import Summary, SummaryKind


def summary_of(name: str, array: np.ndarray, persons: int) -> Summary:
    """A summary of the kind that the name starts with (`count/...`, `moments/...`)."""
    return Summary(SummaryKind(name.split("/")[0]), np.asarray(array, dtype=np.float64), persons)


def dataset_summaries(data: Any, *, persons: int, minimum_cell: int) -> dict[str, Summary]:
    """The dataset's own statistics as `statistics/...`; empty for a dataset that agrees nothing.

    A dataset whose statistics do not rest on all of its persons says on how many by `behind()`. A count's name may tell
    too, as that of a rare category does: where all of a count is below the minimum cell, its name stays here as well.
    """
    if not hasattr(data, "statistics"):
        return {}
    behind: Mapping[str, int] = data.behind() if hasattr(data, "behind") else {}
    summaries = {
        name: summary_of(name, array, min(behind.get(name, persons), persons))
        for name, array in data.statistics().items()
    }
    return {
        f"statistics/{name}": summary
        for name, summary in summaries.items()
        if summary.kind is not SummaryKind.COUNT or summary.suppress(minimum_cell).values.any()
    }
