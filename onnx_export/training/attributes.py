"""Attributes of pictures as numbers, and reading them off an embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from onnx_export.models.sizes import ModelSizes

NOT_OF_THIS_KIND = -1


class AttributeVocabulary:
    """Keys (``collar.color``) and their values, collected from the attributes of pictures."""

    def __init__(self, attributes: Sequence[Mapping[str, str]]) -> None:
        values: dict[str, set[str]] = {}
        for picture in attributes:
            for key, value in picture.items():
                values.setdefault(key, set()).add(value)
        self.values = {key: sorted(found) for key, found in sorted(values.items())}
        self.kinds: dict[str, list[str]] = {}
        for key, found in self.values.items():
            kind = key.rpartition(".")[2]
            self.kinds[kind] = sorted({*self.kinds.get(kind, []), *found})
        self.parts = sorted({key.partition(".")[0] for key in self.values if "." in key})


def head_name(key: str) -> str:
    """Return an attribute's name without dots, which a ``ModuleDict`` does not allow."""
    return key.replace(".", "__")


def read_attributes(
    heads: nn.ModuleDict, vocabulary: AttributeVocabulary, embedding: Tensor, wanted: Sequence[Mapping[str, str]]
) -> Tensor:
    """Return the mean cross-entropy of reading each attribute from an embedding [B, D] with its own head.

    Values that are not in the vocabulary are left out.
    """
    losses, count = [], 0
    for key, values in vocabulary.values.items():
        rows = [row for row, attributes in enumerate(wanted) if attributes.get(key) in values]
        count += len(rows)
        if rows:
            targets = torch.tensor([values.index(wanted[row][key]) for row in rows], device=embedding.device)
            logits = heads[head_name(key)](embedding[rows])
            losses.append(functional.cross_entropy(logits, targets, reduction="sum"))
    return torch.stack(losses).sum() / count


def attribute_codes(
    attributes: Sequence[Mapping[str, str]], only: Sequence[str] | None = None
) -> tuple[list[str], Tensor]:
    """Return attribute keys, and every picture's values as numbers int64 [P, keys], -1 where it has no such attribute.

    The keys are those in ``only``, by default all that occur.
    """
    values: dict[str, dict[str, int]] = {}
    for picture in attributes:
        for key, value in picture.items():
            numbers = values.setdefault(key, {})
            numbers.setdefault(value, len(numbers))
    keys = sorted(values) if only is None else list(only)
    places = {key: place for place, key in enumerate(keys)}
    codes = np.full((len(attributes), len(keys)), NOT_OF_THIS_KIND, dtype=np.int64)
    for row, picture in enumerate(attributes):
        for key in places.keys() & picture.keys():
            codes[row, places[key]] = values[key][picture[key]]
    return keys, torch.from_numpy(codes)


class StateReader(nn.Module):
    """Reads the attributes of every part from the states of a text, by one learnt query per part."""

    def __init__(self, sizes: ModelSizes, vocabulary: AttributeVocabulary) -> None:
        super().__init__()
        width = sizes.text_width
        self.vocabulary = vocabulary
        self.parts = nn.Embedding(len(vocabulary.parts), width)
        self.attention = nn.MultiheadAttention(width, sizes.text_heads, batch_first=True)
        self.hidden = nn.Linear(width, width)
        self.kinds = nn.ModuleDict({kind: nn.Linear(width, len(values)) for kind, values in vocabulary.kinds.items()})

    def forward(self, states: Tensor, mask: Tensor, wanted: Sequence[Mapping[str, str]]) -> Tensor:
        """Return the mean cross-entropy over all attributes of parts whose values are in the vocabulary.

        Args:
            states: float32 [B, L, H].
            mask: int64 [B, L], 1 for words and 0 for padding.
            wanted: the attributes to read, for each of B texts.
        """
        questions = self.parts.weight.expand(len(states), -1, -1)
        answers, _ = self.attention(questions, states, states, key_padding_mask=mask == 0, need_weights=False)
        hidden = functional.gelu(self.hidden(answers + questions))
        losses, count = [], 0
        for kind, values in self.vocabulary.kinds.items():
            known = [
                (row, self.vocabulary.parts.index(part), values.index(value))
                for row, attributes in enumerate(wanted)
                for key, value in attributes.items()
                for part, _, name in [key.partition(".")]
                if name == kind and value in values
            ]
            if known:
                rows, parts, numbers = torch.tensor(known, device=states.device).T
                logits = self.kinds[kind](hidden[rows, parts])
                losses.append(functional.cross_entropy(logits, numbers, reduction="sum"))
                count += len(known)
        return torch.stack(losses).sum() / count
