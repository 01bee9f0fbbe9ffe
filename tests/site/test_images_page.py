"""A check shows a site its own images, on a page that only it can read; the coordinator gets intensities alone."""

import base64
import io
import json
import re
import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from flip.cli.execute import execute
from flip.config.schema import Site
from flip.messages import Task
from flip.messages.summary import Topic
from flip.site.images_page import PAGE, page
from flip.site.silo import Silo
from tests.studies import compose_study

PERSONS = 24
DATASET = (
    "~dataset",
    "+dataset._target_=datamodules.multimodal.Multimodal",
    "+dataset.records={_target_: datamodules.records.Records, person: who, accession: scan}",
    "+dataset.target={_target_: datamodules.targets.Binary, column: ill, positive: ['1']}",
    "+dataset.image={_target_: datamodules.images.Images, size: [16, 16]}",
    "+dataset.split={_target_: datamodules.splits.ByPerson}",
    "model.subgroups={}",
)


def write_site(folder: Path, *, bits: int = 8, white: int = 0) -> Path:
    """Pictures of noise, the first `white` of them white, and one that is damaged."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(1)
    rows = []
    for number in range(PERSONS):
        levels = (0.2 + 0.6 * rng.random((20, 20))) * (2**bits - 1)
        pixels = np.full_like(levels, 2**bits - 1) if number < white else levels
        Image.fromarray(pixels.astype(np.uint8 if bits == 8 else np.uint16)).save(folder / "images" / f"s{number}.png")
        rows.append({"who": f"secret{number}", "scan": f"s{number}", "ill": number % 2})
    (folder / "images" / "s7.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    pd.DataFrame(rows).to_csv(folder / "cohort.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def checked(tmp_path_factory) -> Path:
    """The folder of job=check over two sites: one with three white pictures, one whose pictures have 12 bits in 16."""
    home = tmp_path_factory.mktemp("study")
    roots = {"white": write_site(home / "white", white=3), "dark": write_site(home / "dark", bits=12)}
    sites = [f"+sites.{name}={{root: {root}, policy: public_data}}" for name, root in roots.items()]
    study = compose_study("experiment=chest_xray", "~sites", *sites, *DATASET, "job=check")
    assert execute(study, home / "run")["status"] == "ok"
    return home / "run"


def figures(text: str) -> dict[str, str]:
    """The page's figures by their caption's name."""
    found = re.findall(r"<figure>(.*?)<figcaption>(\w+)(.*?)</figcaption>", text, re.DOTALL)
    return {name: picture + wrong for picture, name, wrong in found}


def test_the_site_sees_its_images_with_those_that_show_nothing_first(checked):
    path = checked / "sites" / "white" / PAGE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = figures(path.read_text())
    assert list(shown)[:4] == ["s7", "s0", "s1", "s2"] and len(shown) == 4 + 12
    assert "damaged" in shown["s7"] and "<img" not in shown["s7"]
    assert all("nearly one gray level" in shown[f"s{number}"] for number in range(3))
    content = re.search(r"base64,([^\"]+)", shown["s0"])[1]
    assert (np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))) == 255).all()
    assert not any("gray level" in shown[name] for name in list(shown)[4:])


def test_the_coordinator_sees_intensities_and_no_image_and_names_what_shows_nothing(checked):
    told = json.loads((checked / "description.json").read_text())
    white, dark = (told["sites"][name]["histogram/image intensities"]["values"] for name in ("white", "dark"))
    assert len(told["edges"]["image intensities"]) == len(white) + 1 == 25
    assert white[-1] == pytest.approx(3) and sum(dark[:2]) == pytest.approx(sum(dark))
    report = (checked / "report.html").read_text()
    assert "image intensities" in report
    assert "3 persons have an image that shows nothing (nearly one gray level)" in report
    assert "23 persons have an image that shows nothing (nearly one gray level)" in report
    for path in checked.rglob("*"):
        if path.is_file() and "sites" not in path.parts:
            content = path.read_bytes()
            assert b"secret" not in content and b"data:image/png" not in content, path


def test_what_travels_is_no_image(tmp_path):
    site = Site(root=str(write_site(tmp_path / "site")), policy={"minimum_persons": 20, "minimum_cell": 5})
    silo = Silo("west", site, tmp_path / "home")
    study = compose_study("experiment=chest_xray", *DATASET, "~sites", "+sites.west={root: x, policy: public_data}")
    reply = silo.answer(Task("run", "study", 0, "describe", {}, {}, {}, study.manifest_text))
    assert reply.fault is None and (tmp_path / "home" / PAGE).is_file()
    assert not reply.weights and not reply.state and not reply.metrics
    told = reply.summaries[Topic.DESCRIPTION]
    histogram = told["histogram/image intensities"]
    assert histogram.values.size == 24 and ((histogram.values == 0) | (histogram.values >= 5)).all()
    assert [*told["count/known/image"].values[1:]] == [0, 0]  # one person has none, in a split too small to be told of
    assert sum(each.values.size for each in told.values()) < 60


def test_a_dataset_without_images_has_no_page(tmp_path):
    (tmp_path / "t.csv").write_text("who,age,ill\n" + "".join(f"p{n},{n},{n % 2}\n" for n in range(30)))
    study = compose_study(
        "experiment=heart_disease", "~dataset", "model.features=1",
        "+dataset={_target_: datamodules.multimodal.Multimodal, "
        "records: {_target_: datamodules.records.Records, person: who}, "
        "target: {_target_: datamodules.targets.Binary, column: ill, positive: ['1']}, "
        "tabular: {_target_: datamodules.tabular.Tabular, numeric: [age]}}",
        f"paths.data_dir={tmp_path}",
    )  # fmt: skip
    silo = Silo("west", Site(root=str(tmp_path / "t.csv"), policy="public_data"), tmp_path / "home")
    assert silo.answer(Task("run", "study", 0, "describe", {}, {}, {}, study.manifest_text)).fault is None
    assert not (tmp_path / "home" / PAGE).exists()


def test_what_a_file_is_called_is_text_on_the_page():
    assert "<script>" not in page([("<script>", "<b>", None)])
