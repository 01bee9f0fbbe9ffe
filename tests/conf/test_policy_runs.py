"""Every shipped experiment runs to its report at hospitals with a policy, and names what they withhold.

Tiny cohorts are smaller than README's minimum of 50 persons and a cell of 5, so the policy is scaled: 10 persons and 5,
for six phantoms a hospital 5 persons and 2, for scans of the whole abdomen 2 and 2.
"""

import html
from dataclasses import replace

import pytest

from flip.cli.execute import execute
from flip.messages import Withheld
from tests.cohorts.studies import TINY
from tests.studies import EXPERIMENTS, compose_study

POLICY = {"minimum_persons": 10, "minimum_cell": 5}
FEW = {"minimum_persons": 2, "minimum_cell": 2}
POLICIES = {"sarcopenia": {"minimum_persons": 5, "minimum_cell": 2}, "abdomen_3d": FEW, "level_finder": FEW}
RULES = tuple(rule.value for rule in Withheld)


SLOW = [pytest.mark.slow]  # DICOM series of 24 phantoms


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=SLOW if name == "sarcopenia" else []) for name in EXPERIMENTS]
)
def test_an_experiment_runs_to_its_report_under_a_policy(experiment, tmp_path):
    study = compose_study(f"experiment={experiment}", *TINY[experiment](tmp_path / "data"), "federation=inprocess")
    policy = POLICIES.get(experiment, POLICY)
    study = replace(study, sites={name: replace(site, policy=policy) for name, site in study.sites.items()})
    result = execute(study, tmp_path / "run")
    assert result["status"] == "ok", (result["reason"], (tmp_path / "run" / "log.txt").read_text()[-2000:])
    report = html.unescape((tmp_path / "run" / "report.html").read_text())
    main = f"test/pooled/{result['monitor']}"
    if main in result["metrics"]:
        assert f"Test {result['monitor']}, pooled over the sites that train" in report
    else:
        assert result["withheld"][main].startswith(RULES)
        assert f"withheld: {result['withheld'][main]}" in report
    assert set(result["withheld"]).isdisjoint(result["metrics"])
    assert all(why.startswith(RULES) for why in result["withheld"].values())
