"""The code of a researcher's own package, as text that a test writes where it needs it."""

PARTS = '''
"""The smallest parts of a study: two columns of the heart-disease tables, and logistic regression on them."""

from pathlib import Path

from datamodules.cohort_table import CohortTable
from flip.privacy import Mechanism
from flip.strategies.fedavg import FedAvg
from models.tabular import LinearClassifier

COLUMNS = "age sex cp trestbps chol fbs restecg thalach exang oldpeak slope ca thal num".split()


class Data(CohortTable):
    def __init__(self, root: str, columns: dict | None = None, trains: bool = True, *, batch_size: int = 4):
        used = {"numeric": ["age", "trestbps"], "categorical": {}, "label": "num", "missing": "?"}
        super().__init__(root, columns, trains, header=COLUMNS, batch_size=batch_size, **used)


class Model(LinearClassifier):
    def __init__(self, optimizer, width: int = 2, threshold: float = 0.5):
        if width % 2:
            raise ValueError("width must be even")
        super().__init__(2, optimizer, threshold)


class Median(FedAvg):
    needs = "each"

    def __post_init__(self):
        self.needs = "each"


class SecureSum(Mechanism):
    strategies = ("sum",)


class FullPrecision(Mechanism):
    def check(self, module, trainer):
        from flip.errors import UserError

        if "precision" in trainer:
            raise UserError("trainer.lightning.precision: cannot be combined with privacy=full; leave it out")


def halved(of: float = 1.0) -> float:
    return of / 2


def narrow(optimizer, lr: float = 1.0):
    return Model(optimizer)


SETTING = 3
'''
