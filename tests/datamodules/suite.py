"""What every datamodule has to keep. A test class inherits `DataModuleSuite` and gives the fixture `make`."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset

KINDS = ("count", "sum", "moments", "histogram")


def first_epoch(datamodule: Any, seed: int) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    return [tensor for batch in datamodule.train_dataloader() for tensor in batch.values()]


def same(ours: list[torch.Tensor], theirs: list[torch.Tensor]) -> bool:
    return all(
        a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(ours, theirs, strict=True)
    )


class DataModuleSuite:
    """The contract between the engine and a datamodule, on tiny data in the form in which a site keeps them."""

    @pytest.fixture
    def make(self) -> Callable[..., Any]:
        """Build the datamodule on tiny data, with any of its arguments given by keyword."""
        raise NotImplementedError("the test class gives a fixture `make`")

    def test_counts_persons_without_loading(self, make):
        assert make().persons() > 0

    def test_says_which_folder_is_missing(self, make, tmp_path):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            make(root=str(tmp_path / "nowhere")).persons()

    def test_loads_once(self, make):
        datamodule = make()
        datamodule.setup("fit")
        before = datamodule.train_dataloader().dataset
        datamodule.setup("test")
        assert datamodule.train_dataloader().dataset is before

    def test_batches_are_named_tensors(self, make):
        datamodule = make()
        datamodule.setup("fit")
        for loader in (datamodule.train_dataloader(), datamodule.test_dataloader()):
            batch = next(iter(loader))
            assert isinstance(batch, Mapping) and all(isinstance(value, torch.Tensor) for value in batch.values())
            assert len({len(value) for value in batch.values()}) == 1

    def test_batches_follow_torchs_seed(self, make):
        datamodule = make()
        datamodule.setup("fit")
        assert same(first_epoch(datamodule, 1), first_epoch(datamodule, 1))
        assert not same(first_epoch(datamodule, 1), first_epoch(datamodule, 2))

    def test_two_sites_can_be_pooled(self, make):
        datasets = []
        for _ in range(2):
            datamodule = make()
            datamodule.setup("fit")
            datasets.append(datamodule.train_dataloader().dataset)
        both = ConcatDataset(datasets)
        assert len(both) == 2 * len(datasets[0]) and both[len(both) - 1].keys() == both[0].keys()

    def test_a_site_that_does_not_train_tests_on_everybody(self, make):
        datamodule = make(trains=False)
        datamodule.setup("test")
        assert not (datamodule.train_dataloader() or None) and not (datamodule.val_dataloader() or None)
        assert len(datamodule.test_dataloader().dataset) + sum(datamodule.skipped.values()) >= datamodule.persons()

    def test_counts_what_it_skipped_by_reason(self, make):
        datamodule = make()
        datamodule.setup("fit")
        assert all(isinstance(reason, str) and number > 0 for reason, number in datamodule.skipped.items())

    def test_statistics_are_sums_that_sites_can_agree_on(self, make):
        datamodule = make()
        if not hasattr(datamodule, "statistics"):
            pytest.skip("this datamodule agrees nothing")
        datamodule.setup("fit")
        statistics = datamodule.statistics()
        assert all(name.split("/")[0] in KINDS and np.isfinite(array).all() for name, array in statistics.items())
        datamodule.agree({name: 2 * array for name, array in statistics.items()})
