"""A tiny text encoder in a folder, as transformers' save_pretrained writes it: BERT of 2 layers, random weights."""

from pathlib import Path

WORDS = ["doctor", "patient", "number", "pain", "since", "monday", "allergic", "to", "nuts", "takes", "daily"]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{letter}" for letter in "abcdefghijklm")]
WIDTH = 16


def write_transformer(folder: Path, seed: int = 0) -> Path:
    """The folder, with settings, vocabulary and safetensors weights."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        config = BertConfig(vocab_size=len(VOCABULARY), max_position_embeddings=64, **shape)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
