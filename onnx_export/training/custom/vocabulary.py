"""Words of the user's texts that the model does not know: each gets a row of its own, which training fills."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch
from tokenizers import Tokenizer
from torch import nn

from onnx_export.errors import TrainingError
from onnx_export.model_folder import ModelFolder
from onnx_export.training.seeds import seeded

FEWEST_TEXTS = 2
"""Texts that a word must stand in: a row that one text alone trains is noise for all others."""


def unknown_words(tokenizer: Tokenizer, texts: Iterable[str]) -> tuple[str, ...]:
    """Return the words that stand in at least ``FEWEST_TEXTS`` texts and have no token, sorted.

    Raises:
        TrainingError: the tokenizer splits words into pieces, so that it has a token for every word.
    """
    kind = json.loads(tokenizer.to_str())["model"]["type"]
    if kind != "WordLevel":
        raise TrainingError(
            f"The model's tokenizer ({kind}) splits unknown words into pieces that it knows; nothing is to be added. "
            "Leave out --extend-vocabulary."
        )
    counts: Counter[str] = Counter()
    for text in texts:
        normalized = text if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str(text)
        words = {word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalized)}
        counts.update(word for word in words if tokenizer.token_to_id(word) is None and any(map(str.isalnum, word)))
    return tuple(sorted(word for word, count in counts.items() if count >= FEWEST_TEXTS))


def extend_vocabulary(start: ModelFolder, words: tuple[str, ...], *, seed: int) -> ModelFolder:
    """Add words to a model's tokenizer and a fresh row for each to composer and re-ranker; its model is changed.

    A fresh row is drawn around the mean of the known ones with their spread, so that it differs from every other word.
    """
    content = json.loads(start.tokenizer.to_str())
    known: dict[str, int] = content["model"]["vocab"]
    first = max(known.values()) + 1
    known.update({word: first + place for place, word in enumerate(words)})
    model = start.model
    rows = max(model.sizes.vocabulary, first + len(words))
    with torch.no_grad(), seeded(seed):
        for part in (model.composer.text_encoder, model.reranker.text_encoder):
            before = part.embeddings.word_embeddings.weight
            fresh = before[:first].mean(0) + before[:first].std(0) * torch.randn(rows - first, before.shape[1])
            words_after = nn.Embedding(rows, before.shape[1])
            words_after.weight.copy_(torch.cat((before[:first], fresh)))
            part.embeddings.word_embeddings = words_after
    model.sizes = replace(model.sizes, vocabulary=rows)
    return replace(start, tokenizer=Tokenizer.from_str(json.dumps(content)))
