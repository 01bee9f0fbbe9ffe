"""The texts of a bundle: how to run it with the model card, and its license."""

from pathlib import Path

from flip.errors import UserError
from flip.report.card_page import DISCLAIMER

LICENSE = "LICENSE"
NONE = (
    "No license has been given for the weights in models/ and for what else this folder holds. Who trained the model "
    "decides: ask them before you use it or hand it on."
)
OURS = (
    "The files in scripts/ are from FLIP, under the Apache License, Version 2.0: "
    "https://www.apache.org/licenses/LICENSE-2.0"
)
HOW = """## How to run it

In the bundle's folder, with torch, monai, pydicom, nibabel, scipy and fire installed, on a folder of one DICOM series:

    python -m monai.bundle run --config_file configs/inference.json --dataset_dir /path/to/series --output_dir eval

The masks are written as NIfTI on the scan's own grid. MONAI reads the series as it is: it does not look for missing
slices, a tilted gantry, values that are no Hounsfield units or the right one of several series, as the engine does.
Look at what it read.
"""


def license_text(file: Path | None) -> str:
    """What stands in the bundle's license. Raises UserError for a file that cannot be read."""
    try:
        terms = file.read_text(encoding="utf-8").strip() if file else NONE
    except (OSError, UnicodeError) as error:
        raise UserError(f"--license {file}: cannot be read as text; name a file of UTF-8") from error
    return f"{terms}\n\n{OURS}\n\n{DISCLAIMER}\n"


def readme(card: str) -> str:
    """The bundle's README: the model card, and at its end how to run the bundle."""
    return f"{card}\n{HOW}"
