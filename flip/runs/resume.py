"""Going on with a run: what its folder must hold, and that it is the same study over the same sites."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from flip.errors import UserError
from flip.runs.folder import RunFolder
from flip.runs.rerun import run_files

if TYPE_CHECKING:
    from flip.config.study import Study

SAME = ("trains", "part", "columns", "sources")  # of a site's file: whose data are read, and as what
REMEDY = "restore it from a copy, or start a new run"


@dataclass(frozen=True)
class Unfinished:
    """A run that can go on.

    Attributes:
        folder: the run's folder.
        identifier: of the run, which its sites know it by.
        manifest_sha256: digest of its study.
        code_sha256: digest of the code that its study names.
        damaged: what of its last round could not be read, so that it goes on from the round before; empty where all is.
    """

    folder: Path
    identifier: str
    manifest_sha256: str
    code_sha256: str
    damaged: str = ""

    def refuse_other(self, study: "Study") -> None:
        """Raises UserError unless the study is the one of the run, over the same sites."""
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
                f"resume={self.folder}: a value that was given, or was changed in its run.yaml, makes another study of "
                "it; only federation, tracking and paths may differ from the run's own"
            )
        if others := [*self._other_sites(study)]:
            raise UserError([f"resume={self.folder}: {each}; the sites stay those of the run" for each in others])

    def _other_sites(self, study: "Study") -> Iterator[str]:
        """One sentence for each site that is not, or not as, in the run."""
        now = {path: yaml.safe_load(text) for path, text in run_files(study).items() if path.startswith("sites/")}
        begun = {f"sites/{path.name}": _read(path) for path in (self.folder / "sites").glob("*.yaml")}
        for path in sorted({*begun, *now}):
            site = Path(path).stem
            if path not in now:
                yield f"{site} took part in the run, and is left out now"
            elif path not in begun:
                yield f"{site} did not take part in the run"
            else:
                for key in SAME:
                    if now[path].get(key) != begun[path].get(key):
                        yield f"sites.{site}.{key} is another than in the run"


def unfinished(folder: Path) -> Unfinished:
    """The run in a folder, which then goes on from its last whole round.

    Raises UserError where there is none, one that has ended well, or one of which a file is damaged.
    """
    if not (folder / "run.yaml").is_file() or not (folder / "provenance.json").is_file():
        raise UserError(f"resume={folder}: holds no run; give the folder of one, runs/NAME/TIME")
    result = folder / "result.json"
    if result.is_file() and _read(result).get("status") == "ok":
        report = "" if (folder / "report.html").exists() else f"; its report: python -m flip report {folder}"
        raise UserError(f"resume={folder}: this run has ended well; there is nothing left to do{report}")
    path = folder / "provenance.json"
    origin = _read(path)
    names = ("run", "manifest_sha256", "code_sha256")
    if missing := [name for name in names if not isinstance(origin.get(name), str)]:
        raise UserError(f"{path}: is damaged, it has no {missing[0]}; {REMEDY}")
    run, manifest, code = (str(origin[name]) for name in names)
    return Unfinished(folder, run, manifest, code, RunFolder(folder, []).mend(look=True))


def _read(path: Path) -> Mapping[str, object]:
    """A file of settings or of facts. Raises UserError where it is none, as when it was cut off."""
    try:
        text = path.read_text()
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: is damaged, it cannot be read as {path.suffix[1:]}; {REMEDY}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: is damaged, it holds no settings; {REMEDY}")
    return found
