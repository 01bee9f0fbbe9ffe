"""A site's own columns: names, units, spelling, what it lacks; each mistake names itself and the remedy."""

import numpy as np
import pandas as pd
import pytest

from datamodules.alignment import aligned, level, levels, numbers

TABLE = pd.DataFrame({"WT_LB": ["150", "", "200"], "SEX": ["M", "F", "UNK"], "age": ["50", "60", "70"]})


def test_a_column_has_the_name_that_the_study_declares():
    assert list(aligned(TABLE, ["sex", "age"], {"sex": "SEX"})) == ["sex", "age"]


def test_a_unit_is_converted():
    weight = aligned(TABLE, ["weight"], {"weight": {"name": "WT_LB", "factor": 0.4536, "offset": 1.0}})["weight"]
    assert numbers(weight, "weight").tolist() == pytest.approx([69.04, np.nan, 91.72], nan_ok=True)


def test_a_category_is_spelled_as_the_study_spells_it():
    mapped = aligned(TABLE, ["sex"], {"sex": {"name": "SEX", "values": {"M": "male", "F": "female"}}}, ["UNK"])
    assert levels(mapped["sex"]).tolist() == ["male", "female", None]


def test_a_column_that_the_site_lacks_is_missing_in_all_rows():
    assert aligned(TABLE, ["albumin"], {"albumin": None})["albumin"].isna().all()


def test_a_column_that_is_not_there_names_the_remedy():
    with pytest.raises(ValueError, match=r"no column weight; map it in the site's `columns`.*`weight: null`"):
        aligned(TABLE, ["weight"], {})


def test_a_mapping_of_what_the_study_does_not_declare_is_refused():
    with pytest.raises(ValueError, match=r"columns.wieght: the study declares no such column"):
        aligned(TABLE, ["weight"], {"wieght": "WT_LB"})


def test_text_where_a_number_belongs_names_the_column():
    with pytest.raises(ValueError, match="column sex holds text that is not a number, 3 times"):
        numbers(TABLE["SEX"], "sex")


@pytest.mark.parametrize("same", [(1, 1.0, "1", "1.0"), (True, "True", np.bool_(True))])
def test_a_level_is_one_whatever_type_a_table_gives_it(same):
    assert len({level(each) for each in same}) == 1
