"""A site's policy: what it permits, and how it says no."""

import pytest

from flip.config.policy import Policy
from flip.errors import UserError
from flip.messages import Fault

TWO = {"minimum_persons": 2, "minimum_cell": 2}


def test_public_data_need_no_approval():
    assert Policy.read("kings", "public_data") == Policy(minimum_persons=1, minimum_cell=1)


def test_a_hospital_under_its_own_file_may_not_call_its_data_public():
    with pytest.raises(UserError, match=r"sites\.kings\.policy=public_data: is for simulations"):
        Policy.read("kings", "public_data", deployed=True)


def test_nor_by_another_name():
    with pytest.raises(UserError, match="minimum_persons: 1 and minimum_cell: 1 is public_data by another name"):
        Policy.read("kings", {"minimum_persons": 1, "minimum_cell": 1}, deployed=True)
    assert Policy.read("kings", {"minimum_persons": 2, "minimum_cell": 1}, deployed=True).minimum_persons == 2


def test_a_site_answers_ten_questions_about_its_cohort_unless_its_owner_says_otherwise():
    assert Policy.read("kings", TWO).maximum_questions == 10
    assert Policy.read("kings", TWO | {"maximum_questions": 2}).maximum_questions == 2


def test_a_cohort_below_the_minimum_is_refused():
    policy = Policy.read("kings", {"minimum_persons": 50, "minimum_cell": 5})
    assert policy.refuses_cohort(49) is Fault.REFUSED_COHORT
    assert policy.refuses_cohort(50) is None


def test_code_outside_the_sites_own_list_is_refused():
    policy = Policy.read("kings", {"minimum_persons": 1, "minimum_cell": 1, "targets": ["models."]})
    model = {"_target_": "models.tabular.LinearClassifier"}
    assert policy.refuses({"model": model}) is None
    refused = policy.refuses({"model": model | {"optimizer": {"_target_": "torch.optim.SGD"}}})
    assert refused and refused[0] is Fault.REFUSED_TARGET


def test_a_prefix_allows_nothing_private_below_it():
    policy = Policy.read("kings", {"minimum_persons": 1, "minimum_cell": 1, "targets": ["models."]})
    assert policy.refuses({"model": {"_target_": "models._secret.Thing"}})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "sites.kings.policy=None"),
        ("public", "sites.kings.policy='public'"),
        ({"minimum_persons": 5}, "sites.kings.policy.minimum_cell=None"),
        ({"minimum_persons": 0, "minimum_cell": 1}, "sites.kings.policy.minimum_persons=0"),
        ({"minimum_persons": "many", "minimum_cell": 1}, "sites.kings.policy.minimum_persons='many'"),
        ({"minimum_persons": 5, "minimum_cell": 5, "minimum_cel": 1}, "sites.kings.policy.minimum_cel: no such rule"),
        (TWO | {"maximum_questions": 0}, "sites.kings.policy.maximum_questions=0: must be a whole number of questions"),
        (TWO | {"targets": "models."}, "sites.kings.policy.targets: 'models.' must be a list of prefixes"),
        (TWO | {"targets": ["models"]}, "sites.kings.policy.targets: 'models' is not a prefix; write the dotted path"),
        (TWO | {"targets": [""]}, "sites.kings.policy.targets: '' is not a prefix"),
        (TWO | {"targets": ["m", "models."]}, "sites.kings.policy.targets: 'm' is not a prefix"),
        (TWO | {"targets": [3]}, "sites.kings.policy.targets: 3 is not a prefix"),
        (TWO | {"targets": ["models.\n"]}, "sites.kings.policy.targets: "),
    ],
)
def test_a_policy_that_cannot_be_read_names_site_and_key(value, message):
    with pytest.raises(UserError, match=message.replace("[", r"\[")):
        Policy.read("kings", value)
