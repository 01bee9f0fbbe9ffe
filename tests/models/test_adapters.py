"""Low-rank adapters in a frozen encoder: what they change, what is trained, and what travels."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch

from flip.cli.execute import execute
from flip.messages.model_file import load_model
from models.encoders.adapters import Adapted
from models.encoders.image import SmallCNN
from tests.cohorts.chest_xray import chest_xray
from tests.studies import compose_study

INSTALLED = importlib.util.find_spec("peft") is not None
needed = pytest.mark.skipif(not INSTALLED, reason="needs the extra package: make test-transformers")
SHARE = 'strategy.share=["*lora_*", "fusion.*", "head.*"]'


@pytest.mark.skipif(INSTALLED, reason="peft is installed")
def test_without_the_package_it_says_what_to_install():
    with pytest.raises(ModuleNotFoundError, match=r"pip install .* '\.\[adapters\]'"):
        Adapted(SmallCNN(), layers=["layers.0"])


@needed
def test_a_pattern_that_names_no_layer_is_refused():
    with pytest.raises(ValueError, match=r"layers \['\*\.qkv'\] name none of the encoder's, which are \['layers\.0'"):
        Adapted(SmallCNN())


@needed
def test_the_first_output_is_the_encoders_own():
    torch.manual_seed(0)
    encoder, images = SmallCNN(), torch.randn(3, 1, 28, 28)
    own = encoder(images)
    assert torch.equal(Adapted(encoder, layers=["layers.0", "layers.4"])(images), own)


@needed
def test_a_layer_is_its_own_and_the_product_of_the_thin_matrices():
    torch.manual_seed(0)
    adapted = Adapted(SmallCNN(), rank=2, alpha=6.0, layers=["layers.0"])
    layer = adapted.encoder.layers[0]
    down, up = layer.lora_A["default"], layer.lora_B["default"]
    torch.nn.init.normal_(up.weight)
    images = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(layer(images), layer.base_layer(images) + 3.0 * up(down(images)))


@needed
def test_the_encoder_is_frozen_and_draws_no_dropout():
    encoder = SmallCNN()
    encoder.layers.append(torch.nn.Dropout(0.5))
    adapted = Adapted(encoder, layers=["layers.0"]).train()
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all("lora_" in name for name in trained)
    images = torch.randn(2, 1, 28, 28)
    assert torch.equal(adapted(images), adapted(images))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, dict]]:
    """The same model trained whole and by its adapters, on tiny radiographs."""
    folder = tmp_path_factory.mktemp("adapters")
    words = [*chest_xray(folder / "data"), "experiment=chest_xray", "federation=inprocess", "model=adapted_classifier"]
    ways = {"adapters": [SHARE], "everything": ['strategy.share=["*"]']}
    return {name: (folder / name, execute(compose_study(*words, *more), folder / name)) for name, more in ways.items()}


def bytes_of(folder: Path) -> int:
    """Bytes that the sites sent in the first round."""
    lines = [json.loads(line) for line in (folder / "rounds.jsonl").read_text().splitlines()]
    return sum(line["bytes_up"] for line in lines if (line["phase"], line["round"]) == ("fit", 0))


@needed
def test_at_least_fifty_times_less_travels(runs):
    (adapters, result), (everything, _) = runs["adapters"], runs["everything"]
    assert result["status"] == "ok", result["reason"]
    assert 50 * bytes_of(adapters) < bytes_of(everything)


@needed
def test_what_does_not_travel_does_not_change_the_weights(runs):
    (adapters, _), (everything, _) = runs["adapters"], runs["everything"]
    sent, whole = (load_model(folder).weights for folder in (adapters, everything))
    assert set(sent) < set(whole)
    assert all((array == whole[name]).all() for name, array in sent.items())
