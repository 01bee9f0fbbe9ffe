"""Notes by a transformer of the site's own disk: its folder, its digest, and a study over it."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from datamodules.sources.transformer import LocalTransformer
from datamodules.text import TransformerText
from flip.messages.model_file import load_model
from tests.cohorts.clinical_notes import clinical_notes
from tests.cohorts.transformer import WIDTH, write_transformer
from tests.commands import flip
from tests.studies import in_rounds

INSTALLED = importlib.util.find_spec("transformers") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="needs the extra package: make test-transformers")
NOTES = ["pain since monday", "allergic to nuts, doctor", "number 7"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_transformer(tmp_path_factory.mktemp("models") / "tiny_bert")


@pytest.mark.skipif(INSTALLED, reason="transformers is installed")
def test_without_the_package_it_says_what_to_install(tmp_path):
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"pip install .* '\.\[transformers\]'"):
        LocalTransformer(str(tmp_path)).digest()


@pytest.mark.parametrize("lacking", ["config.json", "model.safetensors", "vocab.txt"])
def test_a_folder_that_lacks_a_file_is_refused_and_weights_are_never_unpickled(tmp_path, lacking):
    for name in {"config.json", "vocab.txt", "model.safetensors", "pytorch_model.bin"} - {lacking}:
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"sources\.transformer\.folder: .* holds no") as told:
        LocalTransformer(tmp_path.name, root=str(tmp_path.parent)).digest()
    assert lacking.replace("model.", "*.") in str(told.value)


@needed
def test_a_note_is_the_mean_over_its_tokens_whatever_stands_beside_it(folder):
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    found = LocalTransformer(str(folder)).embed(NOTES, 64)
    assert found.dtype == np.float32
    for note, row in zip(NOTES, found, strict=True):
        with torch.no_grad():
            expected = network(**tokenizer(note, return_tensors="pt")).last_hidden_state[0].mean(0)
        np.testing.assert_allclose(row, expected, atol=1e-6)


@needed
def test_no_more_tokens_are_read_than_declared_or_than_it_takes(folder):
    transformer = LocalTransformer(str(folder))
    short, long = transformer.embed(["pain since monday", "pain since monday daily to"], 5)
    np.testing.assert_allclose(short, long, atol=1e-6)  # [CLS], three words and [SEP]
    with pytest.raises(ValueError, match=r"dataset\.text\.length=65: .* 64 tokens at most"):
        transformer.embed(NOTES, 65)


@needed
def test_reading_it_draws_nothing_from_the_studys_generator(folder):
    before = torch.random.get_rng_state()
    LocalTransformer(str(folder)).embed(NOTES, 64)
    assert torch.equal(torch.random.get_rng_state(), before)


@needed
def test_code_in_the_folder_is_not_run(tmp_path):
    hostile = write_transformer(tmp_path / "hostile")
    (hostile / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    settings = json.loads((hostile / "config.json").read_text())
    named = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (hostile / "config.json").write_text(json.dumps({**settings, "auto_map": named}))
    LocalTransformer(str(hostile)).embed(NOTES, 64)  # the library's own class of that kind is taken
    (hostile / "config.json").write_text(json.dumps({**settings, "model_type": "own", "auto_map": named}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        LocalTransformer(str(hostile)).embed(NOTES, 64)
    assert not (tmp_path / "ran").exists()


@needed
def test_a_layer_without_weights_is_not_made_up(folder, tmp_path):
    from safetensors.numpy import load_file as load
    from safetensors.numpy import save_file as save

    cut = write_transformer(tmp_path / "cut")
    weights = load(cut / "model.safetensors")
    weights.pop("encoder.layer.1.output.dense.weight")
    save(weights, cut / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"no weights for encoder\.layer\.1\.output\.dense\.weight"):
        LocalTransformer(str(cut)).embed(NOTES, 64)


@needed
def test_the_digest_is_of_what_is_read(folder, tmp_path):
    transformer = LocalTransformer(str(folder))
    assert transformer.digest() == LocalTransformer(str(write_transformer(tmp_path / "copy"))).digest()
    assert transformer.digest() != LocalTransformer(str(write_transformer(tmp_path / "other", seed=1))).digest()


@needed
def test_a_missing_note_is_masked_and_another_width_refused(folder):
    text = TransformerText("note", width=WIDTH, sha256=LocalTransformer(str(folder)).digest(), length=64)
    text.transformer = LocalTransformer(str(folder))
    found = text.encode(text.read(pd.Series([NOTES[0], None])))
    assert found["text_present"].tolist() == [1, 0]
    assert found["text"].shape == (2, WIDTH) and found["text"][0].any() and not found["text"][1].any()
    text.width = 8
    with pytest.raises(ValueError, match=r"dataset\.text\.width=8: .* has 16"):
        text.encode(NOTES)


def study(folder: Path, data: Path, digest: str) -> list[str]:
    """The study of clinical notes, by the transformer of each site."""
    source = f"{{_target_: datamodules.sources.transformer.LocalTransformer, folder: {folder}}}"
    text = (
        f"_target_: datamodules.text.TransformerText, column: dialogue, width: {WIDTH}, length: 64, sha256: '{digest}'"
    )
    encoder = f"_target_: models.encoders.text.Projection, features: {WIDTH}, width: 8"
    return [
        "experiment=clinical_notes", *in_rounds(clinical_notes(data)), "~dataset.text", f"+dataset.text={{{text}}}",
        "~model.encoders.text", f"+model.encoders.text={{{encoder}}}",
        *(f"sites.notes_{number}.sources={{transformer: {source}}}" for number in (0, 1)),
    ]  # fmt: skip


@needed
def test_a_federated_study_trains_over_it_alike_on_backends_and_its_weights_do_not_travel(folder, tmp_path):
    arguments = study(folder, tmp_path / "data", LocalTransformer(str(folder)).digest())
    for backend in ("flower", "inprocess"):
        ran = flip(tmp_path, *arguments, f"federation={backend}")
        assert ran.status == 0, ran.err
    assert len({result["digest"] for result in ran.results}) == 1
    assert "test/pooled/accuracy" in ran.result["metrics"]
    weights = load_model(ran.runs[-1]).weights
    assert sum(array.size for array in weights.values()) < 500  # the transformer has over 5,000
    assert str(folder) not in (ran.runs[-1] / "run.yaml").read_text()


@needed
def test_another_transformer_than_the_studys_is_refused_before_the_run(folder, tmp_path):
    ran = flip(tmp_path, *study(folder, tmp_path / "data", "0" * 64), "federation=inprocess")
    assert ran.status == 2
    assert LocalTransformer(str(folder)).digest() in ran.err and "dataset.text.sha256" in ran.err
    assert not ran.runs


@needed
def test_a_site_without_a_transformer_is_told_which_key_to_set(folder, tmp_path):
    arguments = study(folder, tmp_path / "data", "0" * 64)[:-1]
    ran = flip(tmp_path, *arguments, "federation=inprocess")
    assert ran.status == 2 and "sources.transformer" in ran.err and "notes_1" in ran.err
