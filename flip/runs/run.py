"""A run that has ended, as Python sees it: its metrics, its rounds as a table, its report."""

import html
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flip.runs.record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

OF_A_LINE = ("phase", "site", "examples", "seconds", "fault")  # columns of the table beside the round and the metrics


@dataclass(frozen=True)
class Run:
    """A run that has ended, well or not.

    Attributes:
        folder: its folder, `runs/<name>/<time>`.
        result: what `result.json` says.
    """

    folder: Path
    result: Mapping[str, Any] = field(repr=False)

    @property
    def status(self) -> str:
        """`ok`, `failed`, `refused` or `interrupted`."""
        return str(self.result["status"])

    @property
    def reason(self) -> str:
        """Why a run failed or was refused; empty for one that is ok."""
        return str(self.result["reason"])

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics of the test split by name, `test/pooled/accuracy`; one that could not be computed is NaN."""
        return {name: math.nan if value is None else float(value) for name, value in self.result["metrics"].items()}

    @property
    def rounds(self) -> "pd.DataFrame":
        """A row for each round (from 1; without federation epoch), phase and site, and a column for each metric."""
        import pandas as pd

        records = RunRecord.read(self.folder).records
        rows = [
            {"round": line["round"] + 1, **{name: line[name] for name in OF_A_LINE}, **line["metrics"]}
            for line in records
        ]
        return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["round", *OF_A_LINE])

    def _repr_html_(self) -> str:
        """The report, as a notebook shows it: a page in a frame, so that neither changes the other's style."""
        report = self.folder / "report.html"
        if not report.is_file():
            return f"<p>{html.escape(f'{self.status} {self.reason}')}</p>"
        page = html.escape(report.read_text(encoding="utf-8"))
        return f'<iframe sandbox srcdoc="{page}" style="width: 100%; height: 80vh; border: 0"></iframe>'
