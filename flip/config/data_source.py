"""Where the data of a shipped study come from: the line `# data:` of its dataset's YAML, with license and address."""

from collections.abc import Sequence
from pathlib import Path

from flip.files import conf_folder

MARK, READY = "# data:", "nothing to get"


def data_source(file: str, folders: Sequence[Path] = ()) -> str:
    """What the YAML file of a dataset says of its data; empty where it says nothing, or is none.

    `file` is the file as messages name it, `conf/dataset/skin_lesions.yaml`; it is looked for in `folders` too.
    """
    name = Path(file).name
    for path in (folder / "dataset" / name for folder in (conf_folder(), *folders)):
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            if line.startswith(MARK):
                return line.removeprefix(MARK).strip()
    return ""


def ready(experiment: Path) -> bool:
    """Whether the study of an experiment's file runs without data to be got or made first."""
    for line in experiment.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("- override /dataset:"):
            return data_source(f"{line.partition(':')[2].split('#')[0].strip()}.yaml").startswith(READY)
    return False
