"""CT planes before training: how they look by person, and the site's own thumbnails of them."""

import numpy as np
import pytest

from datamodules.intensities import BINS, VARIED
from flip.site.images_page import page
from tests.datamodules.test_ct_slices import PERSONS, cohort, loaded, rows, site  # noqa: F401 - fixtures


def test_each_person_has_a_plane_in_the_window(cohort):  # noqa: F811
    told, behind = loaded(cohort).describe({})
    assert told["count/known/image"].tolist() == [PERSONS, 0, 0]
    assert told[f"count/levels/image/{VARIED}"].tolist() == [PERSONS]
    histogram = told["histogram/image intensities"]
    assert histogram.size == BINS and histogram.sum() == pytest.approx(PERSONS)
    assert histogram[0] > 0.2 * PERSONS  # air around the body is below the window
    assert behind["histogram/image intensities"] == PERSONS


def test_a_study_that_is_skipped_has_no_image_and_is_named_to_its_site(site):  # noqa: F811
    accession = rows(site)[0]["accession_id"]
    (site / "labels" / f"{accession}.dcm").unlink()
    data = loaded(site, trains=False)
    told, _ = data.describe({})
    assert told["count/known/image"].tolist() == [PERSONS - 1, 1, 0]
    name, why, pixels = data.thumbnails(9)[0]
    assert (name, pixels) == (accession, None) and why
    shown = data.thumbnails(9)[1:]
    assert [name for name, *_ in shown] == [row["accession_id"] for row in rows(site)[1:]]
    assert all(pixels.shape == (56, 56) and pixels.dtype == np.uint8 and not wrong for _, wrong, pixels in shown)
    assert accession in page(data.thumbnails(9))
