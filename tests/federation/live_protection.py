"""Studies that a live federation runs under a privacy mechanism, held against the same in process."""

from pathlib import Path

from flip.cli.execute import execute
from tests.federation.live_study import SITES, STUDY, Federation
from tests.studies import compose_study

# A deployed FLARE takes half a minute to start and end a study: `local_dp` goes over messages that others go over too.
MECHANISMS = {
    "flower": ("secure_aggregation", "distributed_dp", "local_dp"),
    "nvflare": ("secure_aggregation", "distributed_dp"),
}
# Noise that stays within what hospitals take where their files do not say it.
NOISE = {name: ("dataset.scaling=declared", f"privacy.{name}.clip=0.01") for name in ("distributed_dp", "local_dp")}


def protected(federation: Federation, mechanism: str, folder: Path) -> None:
    """Two rounds under a mechanism, all sites there; `folder` takes the run in process.

    A secure sum has the digest of the reference. Under noise no two live runs are the same, since it is made with the
    secrets of the sites; epsilon is the same, and each site's one ledger has a release a round.
    """
    noised = mechanism in NOISE
    words = [f"privacy={mechanism}", "strategy.min_sites=3", "strategy.rounds=2", *NOISE.get(mechanism, ())]
    before = {site: len(federation.ledger(site)) for site in SITES}
    study = federation.begin(*words)
    ended = study.finish()
    assert ended.status == 0, ended.out + ended.err
    where = ("federation=inprocess", f"paths.data_dir={federation.root / 'data'}")
    expected = execute(compose_study(*STUDY, *where, *words), folder)
    for key in ("status", "rounds", "privacy", *(() if noised else ("digest", "metrics"))):
        assert study.result[key] == expected[key], (mechanism, key)
    assert [each["fault"] for each in study.lines()] == [None] * 2 * len(SITES)
    paid = [federation.ledger(site)[many:] for site, many in before.items()]
    assert [[entry["unit"] for entry in each] for each in paid] == [["site"] * 2 * noised] * len(SITES)
