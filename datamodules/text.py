"""Notes as hashed n-grams, of which sites agree on document frequencies, or as embeddings by a site's transformer."""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import pandas as pd

from datamodules.description import untold

WORD = re.compile(r"\w+")
FREQUENCIES, DOCUMENTS = "count/text/buckets", "count/text/documents"


class HashedText:
    """Text as a bag of hashed n-grams of words, weighted by tf-idf with document frequencies of all sites.

    Batches hold `text` int64 [n, L], numbers of buckets from 1, 0 where there are fewer; `text_weight` float32 [n, L],
    tf-idf of unit length (sublinear tf, smooth idf, as scikit-learn's TfidfTransformer); `text_present` float32 [n].

    Args:
        column: the column of the text.
        buckets: number of buckets; an embedding of them needs buckets + 1 rows.
        ngrams: longest n-gram, words.
        length: n-grams kept of a text, those of the largest weight.
        minimum_documents: persons over all sites with a bucket in their text; rarer buckets are left out.
    """

    def __init__(
        self, column: str = "text", buckets: int = 4096, ngrams: int = 2, length: int = 256, minimum_documents: int = 1
    ) -> None:
        if min(buckets, ngrams, length, minimum_documents) < 1:
            raise ValueError("dataset.text: buckets, ngrams, length and minimum_documents must be 1 or more")
        self.column, self.buckets, self.ngrams, self.length = column, buckets, ngrams, length
        self.minimum_documents = minimum_documents
        self._idf = np.zeros(0)

    def declared_sizes(self) -> dict[str, int]:
        """`buckets`: what the numbers of `text` go to."""
        return {"buckets": self.buckets}

    def read(self, values: pd.Series) -> list[Counter[int] | None]:
        """The buckets of each text with their counts; None where there is none, and for one without a word."""
        return [
            None if value is None or value != value else Counter(self.hashed(str(value))) or None for value in values
        ]

    def hashed(self, text: str) -> list[int]:
        """The buckets of a text's n-grams, 1 to `buckets`: CRC-32 of the words in lower case, joined by blanks."""
        words = WORD.findall(text.lower())
        grams = (
            " ".join(words[start : start + size])
            for size in range(1, self.ngrams + 1)
            for start in range(len(words) - size + 1)
        )
        return [zlib.crc32(gram.encode()) % self.buckets + 1 for gram in grams]

    def statistics(
        self, texts: list[Counter[int] | None], person: np.ndarray, minimum_cell: int = 1
    ) -> dict[str, np.ndarray]:
        """Persons with each bucket in any of their texts [buckets], and persons with a text [1].

        Persons without a text, where there are any, are `minimum_cell` or more: see `untold`.
        """
        known = untold(np.array([each is not None for each in texts], bool), person, minimum_cell)
        of_person: dict[int, set[int]] = {}
        for number, counts, kept in zip(person.tolist(), texts, known, strict=True):
            if kept:
                of_person.setdefault(number, set()).update(counts or ())
        found = np.zeros(self.buckets)
        for buckets in of_person.values():
            found[np.fromiter(buckets, np.int64, len(buckets)) - 1] += 1
        return {FREQUENCIES: found, DOCUMENTS: np.array([float(len(of_person))])}

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Take the inverse document frequencies from the merged counts."""
        frequency = merged.get(FREQUENCIES, np.zeros(self.buckets))
        documents = float(merged.get(DOCUMENTS, np.zeros(1))[0])
        self._idf = np.log((1 + documents) / (1 + frequency)) + 1
        self._idf[frequency < self.minimum_documents] = 0.0

    def encode(self, texts: list[Counter[int] | None]) -> dict[str, np.ndarray]:
        """`text`, `text_weight` and `text_present` of each text."""
        ids = np.zeros((len(texts), self.length), np.int64)
        weights = np.zeros((len(texts), self.length), np.float32)
        for row, counts in enumerate(texts):
            scored = [
                (weight, bucket)
                for bucket, number in (counts or {}).items()
                if (weight := (1 + math.log(number)) * float(self._idf[bucket - 1])) > 0
            ]
            kept = sorted(scored, key=lambda each: (-each[0], each[1]))[: self.length]
            length = math.sqrt(sum(weight**2 for weight, _ in kept))
            ids[row, : len(kept)] = [bucket for _, bucket in kept]
            weights[row, : len(kept)] = [weight / length for weight, _ in kept]
        present = np.array([counts is not None for counts in texts], np.float32)
        return {"text": ids, "text_weight": weights, "text_present": present}


class Transformer(Protocol):
    """What embeds texts at a site (datamodules.sources.transformer)."""

    def digest(self) -> str:
        """Which transformer it is."""

    def embed(self, texts: list[str], length: int) -> np.ndarray:
        """Float32 [texts, width]."""


class TransformerText:
    """Text as its embedding by a transformer that each site has on its own disk (`sources.transformer`).

    Batches hold `text` float32 [n, width], 0 where there is no text, and `text_present` float32 [n]. The transformer is
    not trained and its weights do not travel: every text is embedded once, before the first round.

    Args:
        column: the column of the text.
        width: size of the embedding, as the transformer's config.json says (`hidden_size`).
        sha256: digest of the transformer's folder, so that all sites have the same; a wrong one's message names it.
        length: tokens read of a text, the first ones.
    """

    def __init__(self, column: str = "text", *, width: int, sha256: str, length: int = 256) -> None:
        if min(width, length) < 1:
            raise ValueError("dataset.text: width and length must be 1 or more")
        self.column, self.width, self.sha256, self.length = column, width, sha256, length
        self.transformer: Transformer | None = None

    def declared_sizes(self) -> dict[str, int]:
        """`features`: the width of `text`."""
        return {"features": self.width}

    def read(self, values: pd.Series) -> list[str | None]:
        """Each text; None where there is none. Raises ValueError where the site has another transformer, or none."""
        if self.transformer is None:
            raise ValueError(
                "sources.transformer: this study reads notes by a transformer; name its folder in the site's file: "
                "{_target_: datamodules.sources.transformer.LocalTransformer, folder: ...}"
            )
        if (found := self.transformer.digest()) != self.sha256:
            raise ValueError(
                f"sources.transformer: the folder's digest is {found}, not dataset.text.sha256={self.sha256}; "
                "copy the study's folder to the site, or correct the study"
            )
        return [None if value is None or value != value else str(value) for value in values]

    def statistics(self, texts: list[str | None], person: np.ndarray, minimum_cell: int = 1) -> dict[str, np.ndarray]:
        """Nothing: sites need not agree on anything."""
        return {}

    def agree(self, merged: Mapping[str, np.ndarray]) -> None:
        """Nothing was agreed."""

    def encode(self, texts: list[str | None]) -> dict[str, np.ndarray]:
        """`text` and `text_present` of each text. Raises ValueError for a transformer of another width."""
        assert self.transformer is not None
        embedded = np.zeros((len(texts), self.width), np.float32)
        there = np.array([each is not None for each in texts], bool)
        if there.any():
            found = self.transformer.embed([each for each in texts if each is not None], self.length)
            if found.shape[1] != self.width:
                raise ValueError(f"dataset.text.width={self.width}: the transformer's embedding has {found.shape[1]}")
            embedded[there] = found
        return {"text": embedded, "text_present": there.astype(np.float32)}
