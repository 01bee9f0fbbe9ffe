"""A study of photographs and a table whose sites share one cohort runs live, with the weights of a simulation.

The model that it ends with is scored live, and begun from, at the hospitals whose files name it. Marks in their
photographs and tables reach neither the server, the researcher nor a run's folder.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flip.config.rules import RELEASES
from flip.federation.flower import provision as flower
from flip.federation.nvflare import provision as nvflare
from flip.messages import Fault
from flip.numerics import FAST, PORTABLE
from tests.cohorts.dermatology import dermatology
from tests.commands import flip
from tests.federation.live import Deployment, free_port, until
from tests.federation.live_study import BACKENDS, PATIENCE
from tests.federation.markers import mark_dermatology, marked_files, marks_in
from tests.studies import in_rounds

pytestmark = pytest.mark.slow

CLINICS = ["clinic_0", "clinic_1"]


def flower_kits(root: Path, host: str, numerics: str) -> None:
    flower.prepare(CLINICS, root / "kits", host=host, port=free_port(), runs=root / "runs", numerics=numerics)


def nvflare_kits(root: Path, host: str, numerics: str) -> None:
    nvflare.prepare(CLINICS, root / "kits", host, free_port(), numerics=numerics)


JOBS: list[tuple[list[str], list[str]]] = [  # the hospitals whose files name the model, and what is done with it
    (CLINICS[:1], ["job=evaluate", "model_from={run}", "strategy.min_sites=1"]),
    (CLINICS, ["init={run}"]),
]


def permit(root: Path, clinic: str, own: dict[str, Any], **rules: object) -> None:
    """Write a hospital's file."""
    levels = {"releases": [*RELEASES]}  # of regions too
    policy = {"minimum_persons": 5, "minimum_cell": 1, "approval": "none", **levels, **rules}
    (root / "kits" / clinic / "site.yaml").write_text(yaml.safe_dump({**own, "policy": policy}))


def afterwards(place: Deployment, root: Path, words: list[str], run: Path) -> Iterator[dict[str, Any]]:
    """The results of what is done with the model of a run."""
    told = json.loads((run / "result.json").read_text())
    for clinics, job in JOBS:
        for clinic in clinics:
            own = yaml.safe_load((root / "kits" / clinic / "site.yaml").read_text())
            permit(root, clinic, own, models=[told["model"], told["digest"]])
        yield place.flip(root, *words, *(word.format(run=run) for word in job)).result


def scores(result: dict[str, Any], site: str) -> dict[str, float]:
    """What a result says of a site's test rows."""
    return {name: value for name, value in result["metrics"].items() if name.startswith(f"test/site/{site}/")}


@pytest.mark.parametrize(
    ("backend", "kits", "numerics"), [("flower", flower_kits, FAST), ("nvflare", nvflare_kits, PORTABLE)]
)
def test_it_ends_with_the_weights_of_a_simulation(
    backend: str, kits: Callable[[Path, str, str], None], numerics: str, tmp_path: Path
) -> None:
    words = ["experiment=dermatology", *in_rounds(dermatology(tmp_path / "data")), f"numerics={numerics}"]
    words += ["strategy.rounds=1", "strategy.min_sites=2"]
    mark_dermatology(tmp_path / "data")
    (tmp_path / "runs").mkdir()
    (tmp_path / "here").mkdir()
    with Deployment(tmp_path / "said", ["server", *CLINICS]) as place:
        kits(tmp_path, place.address(), numerics)
        for part, clinic in enumerate(CLINICS):
            own = {"root": str(tmp_path / "data" / "pad_ufes_20"), "person": "patient_id", "part": part}
            permit(tmp_path, clinic, own)
        for party in place.parties:
            place.start(party, tmp_path / "kits" / party)
            if party == "server" and backend == "flower":
                until(lambda: "server: ready" in place.said("server"), PATIENCE)
        live = [f"federation={BACKENDS[backend]}", f"federation.kit={tmp_path / 'kits' / 'admin'}"]
        live += ["federation.timeout=120"]
        ended = place.flip(tmp_path, *words, *live)
        assert ended.status == 0, ended.out + ended.err
        trained = ended.result
        scored, begun = afterwards(place, tmp_path, [*words, *live], ended.runs[0])
        said = ended.out + ended.err + place.said("server")
    assert marked_files(tmp_path / "data")
    assert marked_files(tmp_path / "runs") | marked_files(tmp_path / "kits", tuple(CLINICS)) == {}
    assert marks_in(said.encode()) == []
    assert Fault.REFUSED_MODEL.value in " ".join(scored["warnings"])
    of_test = {site: scores(trained, site) for site in CLINICS}
    assert of_test[CLINICS[0]] and {site: scores(scored, site) for site in CLINICS} == of_test | {CLINICS[1]: {}}
    assert (begun["status"], begun["digest"] == trained["digest"]) == ("ok", False)
    here = flip(tmp_path / "here", *words, "federation=inprocess")
    assert here.status == 0, here.err
    for key in ("status", "digest", "rounds", "metrics", "warnings"):
        assert trained[key] == here.result[key]
