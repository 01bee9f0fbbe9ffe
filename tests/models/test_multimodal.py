"""The multimodal model: the contract of a module for every head, and that absent parts are masked."""

import functools

import pytest
import torch
from monai.networks.nets import DenseNet, EfficientNetBN

from models.encoders.image import Network, SmallCNN, Timm
from models.encoders.tabular import MLP, Embedding, Identity
from models.encoders.text import HashedNGrams
from models.fusion import Attention, Late
from models.heads.classification import Binary, MultiClass, MultiLabel
from models.heads.regression import Regression
from models.heads.survival import Cox, DiscreteTime
from models.metrics.bins import Counted, on_grid
from models.multimodal import MultimodalModel
from tests.models.suite import ModuleSuite, cut, states

ROWS, FEATURES, BUCKETS = 6, 5, 20
PARTS = ("image", "tabular", "text")
GROUPS = ("GROUP", {"num_groups": 2})
SGD = functools.partial(torch.optim.SGD, lr=0.1)


def model(head=Binary, fusion=Late, encoders=None, subgroups=None, **declared) -> MultimodalModel:
    torch.manual_seed(0)
    every = {"image": SmallCNN(1, 16), "tabular": MLP(FEATURES, 8), "text": HashedNGrams(BUCKETS, 8)}
    torch.nn.init.normal_(every["text"].vectors.weight)  # as trained: it starts from nothing
    fused = functools.partial(fusion, width=8, **declared.pop("fused", {}))
    return MultimodalModel(encoders or every, fused, functools.partial(head, **declared), SGD, subgroups)


def batch(**target: torch.Tensor) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    found = {
        "image": torch.randn(ROWS, 1, 28, 28), "tabular": torch.randn(ROWS, FEATURES),
        "text": torch.randint(0, BUCKETS + 1, (ROWS, 4)), "text_weight": torch.rand(ROWS, 4),
        "subgroup_sex": torch.tensor([0, 1, 1, 0, -1, 1]),
    }  # fmt: skip
    present = {"image": [1, 0, 1, 0, 0, 1], "tabular": [1, 1, 0, 0, 1, 1], "text": [1, 1, 1, 0, 1, 0]}
    return {**found, **{f"{name}_present": torch.tensor(there).float() for name, there in present.items()}, **target}


LABELS = torch.tensor([0.0, 1, 1, 0, 1, 0])
TIMES = {"time": torch.tensor([5.0, 1, 3, 2, 4, 6]), "event": torch.tensor([1.0, 1, 0, 1, 1, 0])}


class MultimodalSuite(ModuleSuite):
    HEAD, TARGET, DECLARED = Binary, {"label": LABELS}, {}

    @pytest.fixture
    def module(self):
        return model(self.HEAD, subgroups={"sex": ["female", "male"]}, **self.DECLARED)

    @pytest.fixture
    def train_batch(self):
        return batch(**self.TARGET)

    @pytest.fixture
    def test_batch(self, train_batch):
        return train_batch


class TestBinary(MultimodalSuite):
    pass


class TestMultiClass(MultimodalSuite):
    HEAD, TARGET, DECLARED = MultiClass, {"label": torch.tensor([0, 1, 2, 0, 2, 1])}, {"classes": 3}


class TestMultiLabel(MultimodalSuite):
    LABEL = torch.stack([LABELS, 1 - LABELS], 1).masked_fill(torch.eye(ROWS, 2) > 0, float("nan"))
    HEAD, TARGET, DECLARED = MultiLabel, {"label": LABEL}, {"labels": 2}


SCALED = {
    "label": 60 + 10 * LABELS,
    "label_mean": torch.full((ROWS,), 60.0),
    "label_deviation": torch.full((ROWS,), 10.0),
}


class TestRegression(MultimodalSuite):
    TARGET = SCALED
    HEAD, DECLARED = Regression, dict[str, float]()


class SurvivalSuite(MultimodalSuite):
    TARGET = TIMES

    def test_the_states_of_two_sites_add_up(self, module, test_batch):
        """Pairs of patients are of one site: those of two sites are fewer than those of both as one."""
        whole, first, second = (states(module, cut(test_batch, *part)) for part in ((0, None), (0, 3), (3, None)))
        pairs = [found["c_index_weighted/pairs"] for found in (whole, first, second)]
        assert 0 < pairs[1] + pairs[2] < pairs[0]

    def test_the_batches_of_one_site_are_one_site(self, module, test_batch):
        whole = states(module, test_batch)
        for name, state in states(module, cut(test_batch, 0, 2), cut(test_batch, 2, None)).items():
            if not name.startswith("loss"):  # Cox's loss is of a batch
                torch.testing.assert_close(state, whole[name])


class TestCox(SurvivalSuite):
    HEAD = Cox

    @pytest.fixture
    def module(self):
        made = model(Cox, subgroups={"sex": ["female", "male"]})
        torch.nn.init.normal_(made.head.linear.weight)  # it starts from hazards that are all alike
        return made


class TestDiscreteTime(SurvivalSuite):
    HEAD, DECLARED = DiscreteTime, {"times": [2.0, 4.0, 5.5]}


def test_an_embedding_of_features_learns_too():
    module = model(encoders={"tabular": Embedding(FEATURES, 8)})
    module.training_step(batch(label=LABELS), 0).backward()
    assert module.encoders["tabular"].tokens.weight.grad.any()


@pytest.mark.parametrize("fusion", [Late, Attention])
@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("part", PARTS)
def test_what_an_absent_part_holds_changes_nothing(fusion, declared, part):
    module, rows = model(fusion=fusion, fused={"missingness": declared}).eval(), batch()
    other = {**rows, part: torch.randint(1, BUCKETS, (ROWS, 4)) if part == "text" else rows[part] + 100}
    before, after = module(rows), module(other)
    absent = rows[f"{part}_present"] == 0
    assert absent.any() and torch.equal(before[absent], after[absent])
    assert not torch.equal(before[~absent], after[~absent])


@pytest.mark.parametrize("fusion", [Late, Attention])
def test_an_absent_part_gets_no_gradient(fusion):
    module, rows = model(fusion=fusion), batch(label=LABELS)
    rows["image_present"] = torch.zeros(ROWS)
    module.training_step(rows, 0).backward()
    assert not any(parameter.grad.any() for parameter in module.encoders["image"].parameters())


@pytest.mark.parametrize("fusion", [Late, Attention])
def test_that_a_part_is_missing_says_nothing_where_the_parts_say_the_same(fusion):
    """Parts whose embeddings agree: the output is the same whichever of them are there, unless absence is declared."""
    torch.manual_seed(0)
    one, two = (fusion({"a": 4, "b": 4}, 4, missingness=declared) for declared in (False, True))
    for made in (one, two):
        made.project["b"].load_state_dict(made.project["a"].state_dict())
    same, there = torch.randn(3, 4), {"a": torch.tensor([1.0, 1, 0]), "b": torch.tensor([1.0, 0, 1])}
    rows = same[:1].expand(3, 4)
    found, declared = (made({"a": rows, "b": rows}, there) for made in (one, two))
    torch.testing.assert_close(found, found[:1].expand_as(found))
    assert not torch.allclose(declared, declared[:1].expand_as(declared))


@pytest.mark.parametrize("fusion", [Late, Attention])
def test_a_row_without_any_part_is_kept(fusion):
    module, rows = model(fusion=fusion).eval(), batch(label=LABELS)
    nothing = rows["image_present"] + rows["tabular_present"] + rows["text_present"] == 0
    assert nothing.sum() == 1
    assert torch.isfinite(module(rows)).all()
    loss = module.training_step(rows, 0)
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in module.parameters())


@pytest.mark.parametrize("parts", [("image",), ("tabular", "text"), PARTS])
def test_any_subset_of_parts_is_a_model(parts):
    whole = model()
    module = model(encoders={name: whole.encoders[name] for name in parts} | {"other": None})
    assert module.training_step(batch(label=LABELS), 0) > 0


def test_a_batch_without_presence_has_all_parts():
    rows = {name: value for name, value in batch().items() if not name.endswith("_present")}
    there = rows | {f"{name}_present": torch.ones(ROWS) for name in PARTS}
    module = model().eval()
    torch.testing.assert_close(module(rows), module(there))


def test_a_subgroup_is_scored_and_never_an_input():
    module, rows = model(subgroups={"sex": ["female", "male"]}).eval(), batch(label=LABELS)
    module.test_step(rows, 0)
    counts = {level: int(module.subgroup_metrics[f"sex/{level}/examples"].compute()) for level in ("female", "male")}
    assert counts == {"female": 2, "male": 3}  # one row's is not known
    assert torch.equal(module(rows), module({**rows, "subgroup_sex": -rows["subgroup_sex"]}))


@pytest.mark.parametrize(
    ("head", "declared", "at"), [(Binary, {}, 0.5), (Binary, {"threshold": 0.3}, 0.3), (MultiLabel, {"labels": 2}, 0.5)]
)
def test_curves_know_where_decisions_on_their_rows_are_made_in_each_subgroup_too(head, declared, at):
    module = model(head, subgroups={"sex": ["female", "male"]}, **declared)
    every = [*module.metrics.values(), *module.subgroup_metrics.values()]
    curves = [each.threshold for each in every if isinstance(each, Counted)]
    assert len(curves) >= 3 and {*curves} == {on_grid(at)}


def test_each_curve_of_a_level_stands_beside_that_of_all_rows_and_of_the_other_levels():
    module = model(subgroups={"sex": ["female", "male"]})
    for name, whole in module.metrics.items():
        if isinstance(whole, Counted):
            parts = [module.subgroup_metrics[f"sex/{level}/{name}"] for level in ("female", "male")]
            assert all(part.levels.whole is whole and part.levels.levels == parts for part in parts)


def test_rows_stay_in_the_metrics_that_never_leave_and_are_forgotten():
    module = model(subgroups={"sex": ["female", "male"]}).eval()
    module.test_step(batch(label=LABELS), 0)
    assert module.exact["auroc"].preds
    module.validation_step(batch(label=LABELS), 0)
    for metrics in (module.metrics, module.subgroup_metrics):
        assert all(
            isinstance(getattr(metric, state), torch.Tensor)
            for metric in metrics.values()
            for state in metric._defaults
        )
    assert not {name for name in module.state_dict() if name.startswith(("exact", "subgroup_metrics"))}


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (DenseNet(2, 1, 8, 8, 4, (2, 2), 2, norm=GROUPS), (1, 32, 32)),
        (DenseNet(3, 1, 8, 8, 4, (2, 2), 2, norm=GROUPS), (1, 16, 16, 16)),
        (EfficientNetBN("efficientnet-b0", False, in_channels=1, num_classes=8, norm=GROUPS), (1, 64, 64)),
    ],
    ids=["DenseNet 2D", "DenseNet 3D", "EfficientNet"],
)
def test_monai_networks_are_encoders(network, shape):
    assert Network(network, 8)(torch.randn(2, *shape)).shape == (2, 8)
    assert not any("BatchNorm" in type(layer).__name__ for layer in network.modules())


@pytest.mark.parametrize("encoder", [MLP(4), Embedding(4), Identity(4)], ids=lambda each: type(each).__name__)
def test_another_number_of_features_is_named(encoder):
    with pytest.raises(ValueError, match=r"model\.encoders\.tabular\.features=4: the data have 5 columns.*set it to 5"):
        model(encoders={"tabular": encoder})(batch())


def test_a_class_too_many_is_named():
    declared = {"head": MultiClass, "classes": 3}
    with pytest.raises(ValueError, match=r"model\.head\.classes=3: the data have class 4"):
        model(**declared).training_step(batch(label=torch.tensor([0, 1, 3, 0, 1, 0])), 0)


def test_of_two_classes_the_most_probable_is_no_other_rule_than_a_threshold():
    with pytest.raises(
        ValueError, match=r"model\.head\.classes=2: of two, models\.heads\.classification\.Binary decides"
    ):
        model(MultiClass, classes=2)


def test_a_coordinators_threshold_does_not_move_a_head_that_has_its_own():
    for module in (model(MultiLabel, labels=2), model(threshold=0.3)):
        curve = module.metrics["auroc_binned"]
        before = curve.threshold
        module.decide_at(0.95)
        assert curve.threshold == before


def test_a_network_of_another_size_is_refused_in_words():
    with pytest.raises(ValueError, match=r"gives \[3\], not width=8"):
        Network(torch.nn.Flatten(), 8)(torch.zeros(1, 3))


def test_volumes_have_a_small_network_too():
    assert SmallCNN(1, 16, spatial_dims=3)(torch.randn(2, 1, 8, 8, 8)).shape == (2, 16)


def test_timm_says_what_to_install_and_reads_no_folder():
    with pytest.raises(ValueError, match="no plain name of timm"):
        Timm("hf-hub:somebody/model")
    with pytest.raises(ModuleNotFoundError, match="pip install timm"):
        Timm("convnext_atto")


def test_padding_and_the_order_of_ngrams_do_not_matter():
    encoder = HashedNGrams(BUCKETS, 4)
    ids = torch.tensor([[3, 7, 0, 0], [7, 3, 0, 0]])
    for weight in (None, torch.tensor([[0.3, 0.9, 0.5, 0.5], [0.9, 0.3, 0, 0]])):
        first, second = encoder(ids, weight)
        torch.testing.assert_close(first, second)
    torch.testing.assert_close(encoder(ids[:1])[0], encoder.vectors.weight[[3, 7]].mean(0))


def test_the_identity_makes_the_head_a_regression_of_the_features():
    assert torch.equal(Identity(FEATURES)(rows := torch.randn(2, FEATURES)), rows)
