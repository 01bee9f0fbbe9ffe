"""Nothing outside of a site's own file loosens its policy: every attempt, at a hospital in this process."""

import pytest

from flip.messages import TRACKERS
from tests.federation.attempts import ATTEMPTS, LEAST, There, made
from tests.site.test_gate import RULES, Hospital


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """By attempt what came of it, at a hospital that has answered the study's task before."""
    folder = tmp_path_factory.mktemp("attempts")
    hospital = Hospital(folder / "kits" / "cleveland", "strategy.min_sites=2", "strategy.rounds=2")
    hospital.policy(RULES | {"trackers": None})
    other = folder / "kits" / "other.yaml"
    other.write_bytes(hospital.file.read_bytes())
    task = hospital.moved(0.001, 1, **{TRACKERS: "wandb,mine.Tracker"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LEAST, "1")
        assert hospital.silo.answer(hospital.task("statistics", **{TRACKERS: "mine.Tracker"})).fault is None
        assert hospital.silo.answer(task).fault is None
        return made(lambda task: [hospital.silo.answer(task)], There("cleveland", hospital.file, other, task))


@pytest.mark.parametrize("name", ATTEMPTS)
def test_an_attempt_is_refused_for_its_own_reason(name: str, outcome: dict[str, str | None]) -> None:
    assert outcome[name] == ATTEMPTS[name][1]
