"""A run folder read back: its files, and which metrics, sites and baselines they hold."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flip.errors import UserError
from flip.files import MACHINE_KEYS, POOLED, RESCALED

ENOUGH = 20  # persons tested at a site that may be named the worst: a share of 20 is known to about .2
THRESHOLD = "threshold"  # the probability from which a decision is yes, among the pooled metrics
RESTORE = "restore it from a copy of the run"
NEEDED: Mapping[str, Sequence[tuple[str, type]]] = {
    "provenance.json": [("hardware", dict)],
    "result.json": [("status", str)],
}
"""By file what it holds in every run."""
LOWER_IS_BETTER = ("loss", "error", "mae", "mse", "rmse", "brier", "distance", "hausdorff", "bias", "ece")


@dataclass(frozen=True)
class RunRecord:
    """The files of one run, read back. A file that the run did not come to write is empty here."""

    path: Path
    config: Mapping[str, Any]
    config_text: str  # run.yaml without the blocks that name folders of the machine
    provenance: Mapping[str, Any]
    cohort: Mapping[str, Mapping[str, Any]]
    records: Sequence[Mapping[str, Any]]
    outcomes: Mapping[str, Mapping[str, Any]]
    description: Mapping[str, Any]  # of a job that scored nothing: what its sites told of their cohorts
    result: Mapping[str, Any]
    panels: Mapping[str, Any] = field(default_factory=dict)  # under "panels", what the model shows of its test metrics

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read a run folder. Raises UserError when it is none, has no result.json or holds an unreadable file."""
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException
        from yaml import YAMLError

        if not path.is_dir():
            raise UserError(
                f"{path}: no such run folder; give a folder that holds a result.json, as runs/<name>/<time>"
            )
        if not (path / "result.json").is_file():
            raise UserError(f"{path}: no result.json, so this is no run folder or its run has not ended")
        text = _text(path / "run.yaml")
        try:
            config = OmegaConf.to_container(OmegaConf.create(text), resolve=False) if text else {}
        except (YAMLError, OmegaConfBaseException) as error:
            raise UserError(f"{path / 'run.yaml'}: is damaged, it cannot be read as YAML; {RESTORE}") from error
        files = {
            name: _json(path / f"{name}.json")
            for name in ("provenance", "cohort", "outcomes", "panels", "description", "result")
        }
        if not isinstance(config, dict):
            raise UserError(f"{path / 'run.yaml'}: is damaged, it holds no settings; {RESTORE}")
        settings = {str(key): value for key, value in config.items()}
        return cls(path, settings, _study_text(text), records=records(path / "rounds.jsonl"), **files)

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.config.get("name") or self.path.resolve().parent.name)

    @property
    def backend(self) -> str:
        """The federation backend; "none" for training without federation."""
        return str(self.provenance.get("backend") or "none")

    @property
    def federation(self) -> str:
        """What the federation was: simulated on one machine, whatever the data are, or live; empty without one."""
        if self.backend == "none" or "simulated" not in self.provenance:
            return ""
        return "simulated federation" if self.provenance["simulated"] else "live federation"

    @property
    def sites(self) -> list[str]:
        """Names of the sites, in the roster's order."""
        found = dict.fromkeys([*self.cohort, *(str(record["site"]) for record in self.records)])
        return [site for site in found if site != POOLED]

    @property
    def metrics(self) -> Mapping[str, float]:
        """The run's metrics by their full names; one that could not be computed is NaN."""
        found = self.result.get("metrics") or {}
        return {name: math.nan if value is None else float(value) for name, value in found.items()}

    @property
    def withheld(self) -> Mapping[str, str]:
        """Why a metric is missing, by its full name: a site keeps it, by a rule of its policy."""
        return self.result.get("withheld") or {}

    @property
    def noised(self) -> bool:
        """Whether no number left a site without noise for privacy."""
        from flip.messages import Withheld  # with it comes numpy: not before a study runs

        return Withheld.PRIVACY.value in str(self.withheld)

    @property
    def test_metrics(self) -> list[tuple[str, str | None, str]]:
        """Every test metric of the run itself as (full name, site or None for pooled, metric's own name)."""
        return [(name, *split) for name in self.metrics if (split := _split(name)) is not None]

    @property
    def metric_names(self) -> list[str]:
        """Own names of the test metrics, the main one first, losses last; without intervals and subgroups (a slash)."""
        kept = [(name, *split) for name in self.withheld if (split := _split(name)) is not None]
        pooled_first = sorted([*self.test_metrics, *kept], key=lambda metric: metric[1] is not None)
        monitor = self.result.get("monitor")
        return sorted(
            dict.fromkeys(name for _, _, name in pooled_first if "/" not in name and name != THRESHOLD),
            key=lambda name: (name != monitor, "loss" in name, not self.higher_is_better(name)),
        )

    def interval(
        self, metric: str, at: str | None, prefix: str = "", *, rescaled: bool = False
    ) -> tuple[float, float] | None:
        """The 95 % interval of a test metric, its arguments as in `tested`; None where there is none."""
        low, high = (self.tested(f"{metric}/{end}", at, prefix, rescaled=rescaled) for end in ("low", "high"))
        return (low, high) if math.isfinite(low) and math.isfinite(high) else None

    def examples(self, site: str, split: str) -> int:
        """Examples of a split at a site; 0 where it is not known."""
        return int(self.cohort.get(site, {}).get(split) or 0)

    @property
    def intervals(self) -> Mapping[str, str]:
        """How the interval of each metric was made, by the metric's name."""
        return self.result.get("intervals") or {}

    @property
    def main(self) -> str | None:
        """The main metric: result.json's `monitor`, or the first test metric of which more is better."""
        return self.metric_names[0] if self.metric_names else None

    def higher_is_better(self, metric: str) -> bool:
        """Whether more is better: as result.json says for the main metric, else judged by the metric's name."""
        if metric == self.result.get("monitor") and "higher_is_better" in self.result:
            return bool(self.result["higher_is_better"])
        return not lower_is_better(metric)

    def tested(self, metric: str, at: str | None, prefix: str = "", *, rescaled: bool = False) -> float:
        """A test metric at a site (None: pooled) of the run, or of the baseline of that prefix; NaN where absent.

        `rescaled`: of the same rows scaled the other way, where the dataset has two.
        """
        where = POOLED if at is None else f"site/{at}"
        return self.metrics.get(f"{prefix}test/{RESCALED + '/' if rescaled else ''}{where}/{metric}", math.nan)

    def why_withheld(self, metric: str, at: str | None) -> str:
        """Why a test metric is missing at a site (None: pooled); empty where nobody withholds it."""
        return self.withheld.get(f"test/{POOLED if at is None else f'site/{at}'}/{metric}", "")

    def _tested_persons(self, site: str) -> float:
        """Persons behind a site's test examples, as many an example as in its whole cohort."""
        whole = sum(self.examples(site, split) for split in ("train", "validate", "test"))
        persons = int(self.cohort.get(site, {}).get("persons") or whole)
        return self.examples(site, "test") * min(persons / whole, 1.0) if whole else 0.0

    def worst_site(self, metric: str) -> str | None:
        """The site that the final model serves worst, of those with enough persons tested to say so (`ENOUGH`).

        None with fewer than two of them.
        """
        enough = [site for site in self.sites if self._tested_persons(site) >= ENOUGH]
        values = {site: value for site in enough if math.isfinite(value := self.tested(metric, site))}
        if len(values) < 2:
            return None
        return (min if self.higher_is_better(metric) else max)(values, key=lambda site: values[site])


def lower_is_better(metric: str) -> bool:
    """Whether less is better, judged by the metric's name."""
    return any(part in LOWER_IS_BETTER for part in metric.lower().replace("/", "_").split("_"))


def _split(name: str) -> tuple[str | None, str] | None:
    match name.split("/"):
        case ["test", "site", site, *rest] if rest:
            return site, "/".join(rest)
        case ["test", where, *rest] if rest and where == POOLED:
            return None, "/".join(rest)
    return None


def _text(path: Path) -> str:
    """A file's text, empty where there is none. Raises UserError for one that is no text."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is damaged, it is no text; {RESTORE}") from error


def _json(path: Path) -> dict[str, Any]:
    """What a file holds, empty where there is none. Raises UserError for one that was cut off or overwritten."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(_text(path))
    except json.JSONDecodeError as error:
        what = f"line {error.lineno} is no JSON ({error.msg})" if path.stat().st_size else "it is empty"
        raise UserError(f"{path}: is damaged, {what}; {RESTORE}") from error
    wanted = NEEDED.get(path.name, ())
    whole = isinstance(found, dict) and all(isinstance(found.get(key), kind) for key, kind in wanted)
    if not whole or (path.name == "cohort.json" and not all(isinstance(each, dict) for each in found.values())):
        raise UserError(f"{path}: is damaged, it does not hold what a run writes there; {RESTORE}")
    kept: dict[str, Any] = found
    return kept


def records(path: Path) -> list[dict[str, Any]]:
    """Every whole line; a last one without its end of line was cut off when the run was killed.

    Raises UserError, with its number, for one that is damaged.
    """
    found = []
    for number, line in enumerate(_text(path).splitlines(keepends=True), start=1):
        if not line.endswith("\n") or not line.strip():
            continue
        try:
            read = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}: is damaged, line {number} is no JSON ({error.msg}); {RESTORE}") from error
        if not isinstance(read, dict) or not {"phase", "round", "site"} <= {*read}:
            raise UserError(f"{path}: is damaged, line {number} is of no phase, round and site; {RESTORE}")
        found.append(read)
    return found


def _study_text(text: str) -> str:
    """Leave out of run.yaml the top-level blocks that name folders of the machine it ran on."""
    kept, inside = [], False
    for line in text.splitlines():
        if line[:1] not in (" ", "#", "-", ""):
            inside = line.split(":")[0] in MACHINE_KEYS
        if not inside:
            kept.append(line)
    return "\n".join(kept)
