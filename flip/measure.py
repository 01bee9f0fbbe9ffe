"""`python -m flip.measure RUN OUT [overrides]`: apply a finished run's model to the whole cohort of each site.

    python -m flip.measure runs/sarcopenia/TIME demo/biomarkers experiment=sarcopenia paths.demo_dir=demo/measured
    python -m flip.measure runs/sarcopenia/TIME biomarkers experiment=sarcopenia site_file=site.yaml     # at a hospital

Every person is measured as one who is tested on, and OUT/<site>/ receives what the study's `outcomes` write for a site
alone (for body composition `biomarkers.csv` and `report.html`, readable by their owner only). It runs where the data
are; nothing leaves, and the run's folder is only read. Those tables can then be the cohort of a study of their own.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flip.cli.compose import Composer
from flip.cli.hydra_errors import composed
from flip.cli.study import study_of
from flip.config import build
from flip.config.study import Study
from flip.errors import UserError, mistakes_text
from flip.messages.safetensors import load_file
from flip.messages.weights import load_arrays

WEIGHTS = Path("weights") / "last.safetensors"


def measure(study: Study, run: Path, out: Path) -> list[Path]:
    """Write `out`/<site> for each site of the study, with the weights of a finished run; returns these folders.

    Raises UserError for a run without weights, weights of another model, a study without outcomes or a cohort that
    cannot be read.
    """
    from flip.config.build import initial_module
    from flip.determinism import configure_torch

    if not (run / WEIGHTS).is_file():
        raise UserError(f"{run} holds no {WEIGHTS}: name the folder of a finished run")
    outcomes = build.outcomes(study.manifest)
    if outcomes is None:
        raise UserError("the study has no `outcomes`, so there is nothing to measure")
    configure_torch(study.manifest["trainer"]["threads"])
    module = initial_module(study.manifest)
    try:
        load_arrays(module, load_file(run / WEIGHTS)[0])
    except (KeyError, ValueError) as error:
        raise UserError(f"{run / WEIGHTS} is of another model than this study's: {error.args[0]}") from error
    folders = []
    for name, site in study.sites.items():
        try:
            data = build.datamodule(study.manifest, name, replace(site, trains=False))
            build.load_cohort(data)
        except build.DataError as error:
            raise UserError(str(error)) from error
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        outcomes.collect(module, data, folder)
        folders.append(folder)
    return folders


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 2 for a mistake of the user."""
    parser = argparse.ArgumentParser("python -m flip.measure", description="Apply a finished run's model to cohorts.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run's folder, as runs/<name>/<time>")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder that receives a folder for each site")
    parser.add_argument("overrides", nargs="+", help="the study, as for python -m flip: experiment=sarcopenia ...")
    given = parser.parse_args(arguments)
    try:
        composer = Composer(given.overrides, "config", None)
        cfg = composed(composer)
        study = study_of(cfg, cfg.hydra.runtime.choices, composer)
        for folder in measure(study, given.run, given.out):
            print(folder)
    except UserError as mistake:
        print(mistakes_text(mistake.problems), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
