"""A transformer in a folder of the site's own disk: its frozen weights make notes into numbers, at the site."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

READ = (".json", ".txt", ".model", ".safetensors")  # settings, vocabulary and weights; nothing else is opened
AT_ONCE = 32  # notes in one pass
UNUSED = "pooler."  # a layer that masked language models are published without; the mean over tokens needs none


class LocalTransformer:
    """Embeddings of texts by a text encoder of Hugging Face's that lies in a folder, as BERT; it is never trained.

    The folder is the site's choice, in its own file: a study says only which digest it must have (`digest`), and names
    no path. Only safetensors weights are read, no code of the folder is run and nothing is fetched.

    Args:
        folder: holds config.json, *.safetensors and tokenizer.json (or vocab.txt); absolute, or below `root`.
        root: the site's root.
    """

    def __init__(self, folder: str, *, root: str = ".") -> None:
        self.folder = Path(root) / Path(folder).expanduser()

    def digest(self) -> str:
        """Sha256 over name and sha256 of each file that is read, in the order of the names.

        Raises FileNotFoundError for a folder that lacks one, ValueError without the package transformers.
        """
        for names in (("config.json",), ("*.safetensors",), ("tokenizer.json", "vocab.txt")):
            if not any(path.is_file() for name in names for path in self.folder.glob(name)):
                raise FileNotFoundError(
                    f"sources.transformer.folder: {self.folder} holds no {' or '.join(names)}; name the folder of a "
                    "text encoder as transformers' save_pretrained writes it, weights as safetensors"
                )
        if importlib.util.find_spec("transformers") is None:
            raise ValueError(
                "sources.transformer needs the package transformers at this site: "
                "pip install -c constraints.txt '.[transformers]'"
            )
        total = hashlib.sha256()
        for path in sorted(self.folder.iterdir()):
            if path.suffix in READ and path.is_file():
                with path.open("rb") as file:
                    total.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
        return total.hexdigest()

    def embed(self, texts: Sequence[str], length: int) -> np.ndarray:
        """Means over a text's first `length` tokens of the last layer, float32 [texts, width].

        Raises ValueError for a network that is no text encoder, lacks weights, or takes fewer tokens.
        """
        transformers = importlib.import_module("transformers")
        transformers.utils.logging.disable_progress_bar()
        with torch.random.fork_rng(devices=[]):  # layers without weights would draw from the study's generator
            safe = {"local_files_only": True, "trust_remote_code": False}
            tokenizer = transformers.AutoTokenizer.from_pretrained(self.folder, **safe)
            network, found = transformers.AutoModel.from_pretrained(
                self.folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **safe
            )
        if absent := sorted(name for name in found["missing_keys"] if not name.startswith(UNUSED)):
            raise ValueError(f"sources.transformer.folder: {self.folder} has no weights for {absent[0]}")
        longest = getattr(network.config, "max_position_embeddings", length)
        if length > longest:
            raise ValueError(f"dataset.text.length={length}: the transformer takes {longest} tokens at most")
        network.eval()
        return np.concatenate(
            [_means(tokenizer, network, texts[at : at + AT_ONCE], length) for at in range(0, len(texts), AT_ONCE)]
        )


@torch.inference_mode()
def _means(tokenizer: Any, network: Any, texts: Sequence[str], length: int) -> np.ndarray:
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
    last = network(**tokens).last_hidden_state
    there = tokens["attention_mask"][..., None].to(last)
    means: np.ndarray = ((last * there).sum(1) / there.sum(1)).numpy()
    return means
