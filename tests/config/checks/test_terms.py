"""What a site's `columns` may map: a coded term, for a dataset that takes one."""

import pytest

from tests.studies import compose_study


def said(tmp_path, dataset, columns):
    """The problems with a site's columns."""
    from flip.config.checks.sites import _columns
    from flip.config.schema import Site

    study = compose_study("experiment=heart_disease")
    study.manifest["dataset"] = {"_target_": dataset}
    return list(_columns(study, "north", Site(root=str(tmp_path), columns=columns)))


SCANS, TABLE = "datamodules.segmentation_images.SegmentationImages", "datamodules.multimodal.Multimodal"


@pytest.mark.parametrize("own", ["Hepar", 6, None, {"code": "SCT", "value": "10200004"}])
def test_a_structure_is_a_name_a_number_a_coded_term_or_not_labeled(tmp_path, own):
    assert said(tmp_path, SCANS, {"liver": own}) == []


@pytest.mark.parametrize("own", [{"code": "SCT"}, {"code": "SCT", "valeu": "1"}])
def test_half_a_coded_term_is_none(tmp_path, own):
    assert "columns.liver.code" in said(tmp_path, SCANS, {"liver": own})[0]


def test_a_table_has_no_coded_terms(tmp_path):
    assert len(said(tmp_path, TABLE, {"age": {"code": "SCT", "value": "1"}})) == 2
