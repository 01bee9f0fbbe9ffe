"""The coordinator's part of a run, wherever the loop runs: from a manifest to `result.json`."""

import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flip.contracts import PredictsWith
from flip.coordinator.evaluation import POOLED_TEST
from flip.coordinator.loop import Coordinator
from flip.errors import HELD, StudyFailed, disk_full
from flip.messages import Payload
from flip.messages.model_file import ModelFile
from flip.runs.folder import RunFolder
from flip.runs.untouched import OtherData
from flip.signals import Interrupted, deferred

INTERRUPTED = "interrupted"
ResultFile = dict[str, Any]
"""What `result.json` says."""


def no_result(reason: str, seconds: float, *, rounds: int = 0, status: str = "failed") -> ResultFile:
    """The result of a run that was not brought to an end, or did not begin."""
    return {
        "status": status,
        "reason": reason,
        "digest": None,
        "model": None,
        "rounds": rounds,
        "stopped": "",
        "models": [],
        "seconds": round(seconds, 3),
        "privacy": None,
        "monitor": None,
        "higher_is_better": True,
        "intervals": {},
        "units": {},
        "metrics": {},
        "withheld": {},
        "warnings": [],
    }


def why(error: BaseException, files: RunFolder, run: str) -> str:
    """Why an error ended the run, in one sentence; the traceback of one that the user cannot mend is in the log.

    `run` is the run's folder as the user knows it.
    """
    if not disk_full(error):
        traceback.print_exc()
        return f"{type(error).__name__}; the traceback is in log.txt of the run folder"
    places = {"of the run folder": files.folder, "of temporary files (TMPDIR)": Path(tempfile.gettempdir())}
    place = min(places, key=lambda name: shutil.disk_usage(places[name]).free)
    begun = f", then go on: python -m flip resume={run}" if files.last_round() >= 0 else ""
    return f"no space is left on the disk {place}; free some{begun}"


@dataclass
class Ending:
    """Brings a run to its result.

    Args:
        files: the run's folder.
        coordinator: the study's coordinator.
        train: trains and tests; returns the final weights, or None where nothing was to be trained.
        run: the run's folder as the user knows it.
        served: at a backend's server, whose process is told to end by SystemExit: then nothing more is written, since
            whoever stopped the run says how it ended.
    """

    files: RunFolder
    coordinator: Coordinator
    train: Callable[[], Payload | None]
    run: str
    served: bool = False

    def reach(self, started: float) -> ResultFile:
        """Train, test, and write `result.json`: the only sign of success. An error of ours is written to the log.

        Raises Interrupted again once the result says so; and, here, OtherData.
        """
        status, reason, final, asked = "ok", "", None, None
        try:
            final = self._train()
        except StudyFailed as failed:
            if isinstance(failed, OtherData) and not self.served:
                raise
            status, reason = failed.status, str(failed)
        except Interrupted as signaled:
            status, reason, asked = INTERRUPTED, signaled.words, signaled
        except (Exception, SystemExit) as error:  # of the engine, a backend or a library that means to end the process
            if self.served and isinstance(error, SystemExit):
                raise
            status, reason = "failed", why(error, self.files, self.run)
        seconds = time.perf_counter() - started
        rounds = max(self.coordinator.rounds_done, self.files.last_round() + 1)  # of a resume that fails, the run's
        result = no_result(reason, seconds, rounds=rounds, status=status) | {
            "digest": final.digest if final is not None else None,
            "model": final.whole_digest if final is not None else None,
            "stopped": self.coordinator.stopped,
            "models": self.coordinator.models(),
            "privacy": self._privacy(),
            "monitor": self.coordinator.module.monitor,
            "higher_is_better": self.coordinator.module.higher_is_better,
            "intervals": self.coordinator.evaluation.methods,
            "units": self.coordinator.evaluation.units,
            "metrics": self.coordinator.evaluation.metrics,
            "withheld": self.coordinator.evaluation.withheld,
            "warnings": self.files.warnings(),
        }
        result |= {"metrics": {}, "withheld": {}, "intervals": {}} if status == HELD else {}  # they lack sites
        with deferred():
            self.files.json("result.json", result)
        if asked is not None:
            raise asked
        return result

    def _train(self) -> ModelFile | None:
        """The final model, if any, on disk. While it trains, the space that the result will need is held."""
        self.files.reserve()
        try:
            weights = self.train()
            self.coordinator.roster.all_released()
            if weights is None:
                return None
            final = self.coordinator.roster.model(weights, **self._known())
            self.files.last(final)
            return final
        finally:
            self.files.release()

    def _known(self) -> dict[str, float | None]:
        """What a prediction by the final weights needs besides: the threshold, and what the module names."""
        evaluation, module = self.coordinator.evaluation, self.coordinator.module
        named = module.predicts_with if isinstance(module, PredictsWith) else ()
        found = {name: evaluation.metrics.get(f"{POOLED_TEST}{name}") for name in named}
        return {"threshold": evaluation.threshold, **{name: each for name, each in found.items() if each is not None}}

    def _privacy(self) -> dict[str, Any] | None:
        """The largest epsilon over sites, and each site's."""
        spent = self.coordinator.roster.privacy
        if not spent:
            return None
        worst = max(spent.values(), key=lambda entry: entry["epsilon"])
        noise = self.coordinator.evaluation.noise
        return {"unit": self.coordinator.roster.unit, **worst, "by_site": spent, **({"noise": noise} if noise else {})}
