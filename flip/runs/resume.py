"""Going on with a run: what its folder must hold, and that it is the same study."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flip.errors import UserError

if TYPE_CHECKING:
    from flip.config.study import Study


@dataclass(frozen=True)
class Unfinished:
    """A run that can go on.

    Attributes:
        folder: the run's folder.
        identifier: of the run, which its sites know it by.
        manifest_sha256: digest of its study.
        code_sha256: digest of the code that its study names.
    """

    folder: Path
    identifier: str
    manifest_sha256: str
    code_sha256: str

    def refuse_other(self, study: "Study") -> None:
        """Raises UserError unless the study is the one of the run."""
        if not study.federation.get("_target_"):
            raise UserError(
                f"resume={self.folder}: a run without federation goes on from a checkpoint of Lightning's: "
                "resume_from=NAME.ckpt, with trainer.callbacks that write one"
            )
        if study.manifest["code"] != self.code_sha256:
            raise UserError(
                f"resume={self.folder}: the run was begun with another version of the engine's or the study's code; "
                "check out the commit that its provenance.json names, or start a new run"
            )
        if study.manifest_sha256 != self.manifest_sha256:
            raise UserError(
                f"resume={self.folder}: a value that was given makes another study of it; only federation, tracking "
                "and paths may differ from the run's own"
            )


def unfinished(folder: Path) -> Unfinished:
    """The run in a folder. Raises UserError where there is none, or one that has ended well."""
    if not (folder / "run.yaml").is_file() or not (folder / "provenance.json").is_file():
        raise UserError(f"resume={folder}: holds no run; give the folder of one, runs/NAME/TIME")
    result = folder / "result.json"
    if result.is_file() and json.loads(result.read_text())["status"] == "ok":
        report = "" if (folder / "report.html").exists() else f"; its report: python -m flip report {folder}"
        raise UserError(f"resume={folder}: this run has ended well; there is nothing left to do{report}")
    origin = json.loads((folder / "provenance.json").read_text())
    return Unfinished(folder, origin["run"], origin["manifest_sha256"], origin["code_sha256"])
