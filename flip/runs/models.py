"""What a run's folder holds of models that were trained elsewhere, for whoever runs the loop: `given/`."""

from collections.abc import Sequence
from itertools import count, takewhile
from pathlib import Path

from flip.messages import Payload
from flip.messages.model_file import ModelFile, load_model, save_model
from flip.messages.safetensors import load_file, save_file

GIVEN, START, STAYS = "given", "start.safetensors", "at_sites"


def model_name(number: int) -> str:
    """How a run names the models that it was given, from 0."""
    return f"model_{number + 1}"


def stay(run: Path) -> None:
    """Have sites take the given weights from their own disks, in place of being sent them."""
    (run / GIVEN).mkdir(parents=True, exist_ok=True)
    (run / GIVEN / STAYS).touch()


def stays(run: Path) -> bool:
    """Whether they do."""
    return (run / GIVEN / STAYS).is_file()


def start_file(run: Path) -> Path:
    """Where a run keeps the weights that its training begins from, if these are not the seeded ones alone."""
    return run / GIVEN / START


def keep_start(run: Path, start: Payload) -> None:
    """Keep the weights that training begins from, as their file has them."""
    save_file(start_file(run), start)


def kept_start(run: Path) -> Payload | None:
    """The weights that training begins from; None where it begins from the seeded ones alone."""
    return load_file(start_file(run))[0] if start_file(run).is_file() else None


def keep_models(run: Path, models: Sequence[ModelFile]) -> None:
    """Keep the models that a job applies: `given/model_1.safetensors`, ..."""
    for number, model in enumerate(models):
        save_model(run / GIVEN / f"{model_name(number)}.safetensors", model)


def kept_models(run: Path) -> list[ModelFile]:
    """The models that a job applies, in their order. Raises UserError for a damaged file."""
    paths = (run / GIVEN / f"{model_name(number)}.safetensors" for number in count())
    return [load_model(path) for path in takewhile(Path.is_file, paths)]
