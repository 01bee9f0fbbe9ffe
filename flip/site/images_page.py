"""A page of a site's own images, for its own eyes: a few as the network sees them, and those that show nothing."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from flip.contracts import FederatedDataModule, ShowsImages
from flip.files import write_atomic

if TYPE_CHECKING:
    import numpy as np

PAGE = "images.html"
SHOWN = 12  # images of each kind: as the others, showing nothing, not read
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 24px; }
figure { display: inline-block; vertical-align: top; width: 160px; margin: 0 12px 16px 0; overflow-wrap: anywhere; }
img { width: 160px; image-rendering: pixelated; outline: 1px solid #bbb; }
.odd { color: #b00020; }
"""


def write_images(home: Path, data: FederatedDataModule) -> bool:
    """Write `images.html` into the site's own folder, readable by its owner alone; whether the dataset has images.

    It holds patients' images and accession numbers. Nothing reads it, and nothing sends it.
    """
    if not isinstance(data, ShowsImages) or not (shown := data.thumbnails(SHOWN)):
        return False
    write_atomic(home / PAGE, page(shown).encode(), mode=0o600)
    return True


def page(shown: Sequence[tuple[str, str, "np.ndarray | None"]]) -> str:
    """The page of images, each with its name, what is wrong with it, and its pixels."""
    figures = []
    for name, wrong, pixels in shown:
        picture = f'<img alt="" src="data:image/png;base64,{_png(pixels)}">' if pixels is not None else ""
        said = f'<br><span class="odd">{escape(wrong)}</span>' if wrong else ""
        figures.append(f"<figure>{picture}<figcaption>{escape(name)}{said}</figcaption></figure>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Images of this site</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>Images of this site</h1>\n"
        "<p>As the network sees them, before augmentation. Patients are on this page: it stays at the site.</p>\n"
        + "\n".join(figures)
        + "\n</body></html>\n"
    )


def _png(pixels: "np.ndarray") -> str:
    from PIL import Image

    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return base64.b64encode(content.getvalue()).decode()
