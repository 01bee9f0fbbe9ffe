"""`job=predict` at a site: a trained model's predictions for rows without labels, in a file that stays there."""

import csv
import io
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch.utils.data import DataLoader, Dataset

from flip.config import build
from flip.contracts import Decides, GivesStudies, NamesInputs, NamesRows, PredictsWith, WritesPredictions
from flip.files import write_atomic
from flip.messages import Fault, Task
from flip.messages.applied import Applied
from flip.messages.weights import load_arrays
from flip.site.admission import Loaded, Place
from flip.site.evaluate import scalings
from flip.site.fit import device_of
from flip.site.refusal import Refusal
from flip.site.trainer import Device
from flip.text import printable

if TYPE_CHECKING:
    from flip.contracts.dataset import Batch, Loader
    from flip.contracts.model import TrainableModule

FILE = "predictions.csv"
USE = "research use only, not a medical device"
Columns = Mapping[str, list[object]]


def predict(place: Place, loaded: Loaded, task: Task, log: logging.Logger) -> None:
    """Write `predictions.csv`: the site's own name of each row, what the model predicts, or why it does not.

    Where the study has several inputs, such as a photograph and a table, `inputs` are those that the row has.
    Its last columns are the sha256 of the weights and what the file may be used for. The owner alone can read it.
    Raises Refusal for a dataset that cannot name its rows.
    """
    data, module = loaded.datamodule, loaded.module
    if isinstance(data, GivesStudies) and isinstance(module, WritesPredictions):
        write_files(place, loaded, task, log)
        return
    if not isinstance(data, NamesRows):
        raise Refusal(Fault.REFUSED_MANIFEST, "the study's dataset has no names for its rows (row_names)")
    load_arrays(module, task.weights)
    known = Applied.of(task.state)
    if isinstance(module, Decides) and module.chooses_threshold and "threshold" in known.scores:
        module.decide_at(known.scores["threshold"])
    if isinstance(module, PredictsWith):
        module.know(known.scores)
    rows, _ = scalings(data, "test", pooled=bool(task.params.get("pooled")))
    predicted = named(predictions(module, rows, device_of(loaded.manifest, place.site)), data.predicted_names)
    read, skipped, unfounded = data.row_names("test"), data.skipped_rows(), data.unfounded_rows("test")
    if isinstance(data, NamesInputs) and (inputs := data.row_inputs("test")):
        predicted = {**predicted, **texts({"inputs": inputs})}
    lines = [
        {**name, **({"reason": printable(why)} if why else numbers)}
        for name, numbers, why in zip(records(texts(read)), records(predicted), unfounded, strict=True)
    ]
    lines += records(texts(skipped))
    columns = dict.fromkeys([*read, *predicted, "reason", "model", "use"])
    about = {"model": known.digest, "use": USE}
    content = io.StringIO()
    table = csv.DictWriter(content, columns, lineterminator="\n")
    table.writeheader()
    table.writerows({**line, **about} for line in lines)
    write_atomic(place.home / FILE, content.getvalue().encode(), mode=0o600)
    for reason, number in Counter([*skipped["reason"], *filter(None, unfounded)]).items():
        log.warning("%d not predicted: %s", number, printable(reason))


def write_files(place: Place, loaded: Loaded, task: Task, log: logging.Logger) -> None:
    """Have the module write what it predicts of each study, as masks."""
    data, module = loaded.datamodule, loaded.module
    assert isinstance(module, WritesPredictions)
    load_arrays(loaded.module, task.weights)
    trainer = device_of(loaded.manifest, place.site).trainer()

    def apply(batch: "Batch") -> torch.Tensor:
        (found,) = cast(
            "list[torch.Tensor]",
            trainer.predict(loaded.module, DataLoader(cast("Dataset[Batch]", [batch]), batch_size=None)),
        )
        return found

    digest = Applied.of(task.state).digest
    unread = build.of_data(lambda: module.write_predictions(data, place.home, apply, digest))
    for reason, number in unread.items():
        log.warning("%d not predicted: %s", number, printable(reason))


def predictions(module: "TrainableModule", rows: "Loader", device: Device) -> dict[str, torch.Tensor]:
    """What the module's `predict_step` gives of all batches, by name, on the processor."""
    found: dict[str, list[torch.Tensor]] = {}
    batches = cast("list[Mapping[str, torch.Tensor]]", device.trainer().predict(module, rows))
    for batch in batches:
        for name, values in batch.items():
            found.setdefault(name, []).append(values.cpu())
    return {name: torch.cat(each) for name, each in found.items()}


def named(predicted: Mapping[str, torch.Tensor], names: Sequence[str]) -> Columns:
    """Columns of predictions: one of [n, k] becomes k, by the dataset's names, and a class of `predicted` its name."""
    columns: dict[str, list[object]] = {}
    for name, values in predicted.items():
        if values.ndim == 2:
            columns |= {f"{name}_{each}": cells(column) for each, column in zip(names, values.T, strict=True)}
        elif name == "predicted" and names:
            columns[name] = [names[int(each)] for each in values]
        else:
            columns[name] = cells(values)
    return columns


def cells(values: torch.Tensor) -> list[object]:
    """Numbers as a table has them; NaN is an empty cell."""
    return ["" if each != each else each for each in values.tolist()]


def texts(columns: Mapping[str, Sequence[str]]) -> Columns:
    """Names and reasons as text that a table can hold."""
    return {name: [printable(each) for each in values] for name, values in columns.items()}


def records(columns: Columns) -> list[dict[str, object]]:
    """The lines of columns that are all as long."""
    return [dict(zip(columns, line, strict=True)) for line in zip(*columns.values(), strict=True)]
