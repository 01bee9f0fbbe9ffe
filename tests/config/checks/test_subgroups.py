"""A dataset's groups are those that the model scores by, or one sentence names both keys."""

from types import SimpleNamespace

import pytest

from flip.config.checks.subgroups import subgroup_problems

GIVEN = {"sex": ["F", "M"]}


def problems(scored: dict[str, list[str]] | None, given: dict[str, list[str]]) -> list[str]:
    model = SimpleNamespace() if scored is None else SimpleNamespace(levels=scored, subgroup_metrics={})
    return [*subgroup_problems(model, SimpleNamespace(subgroup_levels=given))]


@pytest.mark.parametrize(
    ("scored", "said"),
    [
        ({}, "dataset.subgroups.sex: model.subgroups does not name it"),
        (None, "choose another model"),
        ({"sex": ["F", "M"], "age": ["old"]}, "model.subgroups.age: dataset.subgroups does not declare it"),
        ({"sex": ["M", "F"]}, r"\[M, F\] has another order than dataset.subgroups.sex, \[F, M\]"),
        ({"sex": ["women"]}, "another number of levels"),
    ],
)
def test_groups_that_are_not_scored_as_declared_are_named(scored: dict[str, list[str]] | None, said: str) -> None:
    (found,) = problems(scored, GIVEN)
    with pytest.raises(ValueError, match=said):
        raise ValueError(found)


@pytest.mark.parametrize("scored", [{"sex": ["F", "M"]}, {"sex": ["women", "men"]}, {"sex": ["F", "other"]}])
def test_a_models_own_names_stand_for_the_levels_in_their_order(scored: dict[str, list[str]]) -> None:
    assert problems(scored, GIVEN) == []


def test_a_study_with_a_group_that_no_metric_is_made_for_is_refused() -> None:
    from flip.config.checks.study import check
    from flip.errors import UserError
    from tests.studies import compose_study

    study = compose_study("experiment=dermatology", "~model.subgroups.age", "federation=flower_superlink")
    with pytest.raises(
        UserError, match=r"dataset.subgroups.age: model.subgroups does not name it.*model.subgroups=\{age"
    ):
        check(study)
