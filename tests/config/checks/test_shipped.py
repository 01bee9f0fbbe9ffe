"""Every shipped experiment passes the check of every backend: a simulation's on tiny data, a live one's without any."""

import re
from pathlib import Path

import pytest

import flip
from flip.errors import UserError
from flip.federation.flower.provision import prepare
from tests.cohorts.studies import TINY
from tests.studies import EXPERIMENTS, in_rounds

LIVE = ("flower_superlink", "nvflare_provisioned")
SLOW = {"sarcopenia": [pytest.mark.slow]}  # DICOM series of 24 phantoms


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The researcher's kit of a server that is not running."""
    out = tmp_path_factory.mktemp("live") / "kits"
    prepare(["kings"], out)
    return out / "admin"


def live(experiment: str, backend: str, kit: Path) -> list[str]:
    return [f"experiment={experiment}", f"federation={backend}", f"federation.kit={kit}", "paths.data_dir=/nowhere"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, [])) for name in EXPERIMENTS])
def test_it_passes_the_check_of_each_simulation(name: str, folder: Path, tmp_path: Path) -> None:
    data = TINY[name](tmp_path / "data")
    backends = ["inprocess"] if name not in ("heart_disease", "sarcopenia") else ["inprocess", "flower", "nvflare"]
    for backend in backends:
        study = flip.compose([f"experiment={name}", *in_rounds(data), f"federation={backend}"])
        assert (study.backend, study.live) == (backend, False)


@pytest.mark.parametrize("backend", LIVE)
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_it_passes_the_check_of_a_live_federation(name: str, backend: str, kit: Path, folder: Path) -> None:
    study = flip.compose([*live(name, backend, kit), "strategy.min_sites=2"])
    assert (study.backend, study.live) == (backend, True)
    assert all(site.root == "" for site in study.sites.values())


@pytest.mark.parametrize("backend", LIVE)
def test_a_live_study_says_how_many_sites_a_round_needs(backend: str, kit: Path, folder: Path) -> None:
    with pytest.raises(UserError, match=r"strategy.min_sites .*: a live study says how many sites a round needs"):
        flip.compose(live("heart_disease", backend, kit))
    assert flip.compose([*live("heart_disease", backend, kit), "job=check"]).live  # which has no rounds


@pytest.mark.parametrize("backend", LIVE)
def test_no_word_of_a_command_line_is_a_rule_of_a_hospital(backend: str, kit: Path, folder: Path) -> None:
    words = ["sites=[va,cleveland]", "++sites.va.policy=public_data", "++sites.cleveland.policy.approval=none"]
    with pytest.raises(UserError) as error:
        flip.compose([*live("heart_disease", backend, kit), "strategy.min_sites=2", *words])
    for site in ("va", "cleveland"):
        said = rf"sites.{site}.policy\S* .*a hospital's own file says it, which no study changes"
        assert re.search(said, str(error.value)), site


@pytest.mark.parametrize("backend", ["inprocess", "flower", "nvflare", *LIVE])
def test_a_study_has_no_key_for_a_policy(backend: str, kit: Path, folder: Path) -> None:
    words = ["++policy=public_data", "++minimum_persons=1", "++dataset.policy=public_data"]
    given = [f"federation.kit={kit}", "strategy.min_sites=2"] if backend in LIVE else []
    with pytest.raises(UserError) as error:
        flip.compose(["experiment=heart_disease", f"federation={backend}", *given, *words])
    keys = [word.strip("+").split("=")[0] for word in words]
    assert [key for key in keys if not re.search(rf"(?<![\w.]){key}\b", str(error.value))] == []
