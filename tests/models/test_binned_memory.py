"""Binned metrics where torch is deterministic, as at every site: counting takes no memory to speak of."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from models.metrics.binned import BinnedAUROC
from models.metrics.classes import BinnedClassAUROC


@pytest.fixture
def _deterministic():
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.usefixtures("_deterministic")
@pytest.mark.parametrize(("metric", "classes"), [(BinnedAUROC, 0), (lambda: BinnedClassAUROC(6), 6)])
def test_counting_takes_less_than_ten_megabytes(metric, classes):
    binned, label = metric(), torch.arange(12) % 2
    predicted = torch.rand(12, classes).softmax(1) if classes else torch.rand(12)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        binned.update(predicted, label)
    assert max(event.cpu_memory_usage for event in profiled.events()) < 10 * 2**20
    assert torch.are_deterministic_algorithms_enabled()
