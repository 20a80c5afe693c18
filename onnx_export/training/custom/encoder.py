"""Training of the image encoder on the user's pictures, together with the composer; then it is frozen as always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from onnx_export.export import preprocessing_of
from onnx_export.models import CirModel
from onnx_export.training.custom.data import CustomData, NamedTriplet, triplet_set
from onnx_export.training.custom.validation import HeldOut
from onnx_export.training.features import PictureFeatures
from onnx_export.training.losses import positives_loss, similarities
from onnx_export.training.stages import draw_triplets
from onnx_export.training.texts import encode_texts
from onnx_export.training.triplets import Triplet, TripletSet
from qdrant_cir.indexing.sources import ImageRecord
from qdrant_cir.model.preprocess import read_pixels

ALIKE_DEPTH = 16
"""Of so many pictures that the starting model finds most like a target, some are in its batch as wrong answers."""
VALIDATION_PICTURES = 1_000
_BATCH = 64


class EncoderStage:
    """Losses of the image encoder and the composer: softmax over cosines with all pictures of the batch.

    The pictures are read and encoded anew in every step: references, targets, and for each target some pictures that
    the starting model finds like it. Statistics of batch normalisation stay as they are.
    """

    def __init__(
        self,
        model: CirModel,
        data: TripletSet,
        pictures: Sequence[ImageRecord],
        tokenizer: Tokenizer,
        *,
        seed: int,
        batch: int,
        alike: int,
    ) -> None:
        self.model, self.data, self.pictures, self.tokenizer = model, data, pictures, tokenizer
        self.seed, self.batch, self.alike = seed, min(batch, len(data.triplets)), alike
        self.log_scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32, device=model.device))
        self.modules = nn.ModuleDict(
            {
                "image_encoder": model.image_encoder,
                "composer": model.composer,
                "temperature": nn.ParameterList([self.log_scale]),
            }
        )

    def step(self, batch: int) -> dict[str, Tensor]:
        """Draw a batch from the seed and its number, and return its losses."""
        for module in self.model.image_encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()  # a model that was read from a bundle has no statistics of its own
        rng = np.random.default_rng((self.seed, 3, batch))
        triplets, texts = draw_triplets(self.data.triplets, self.batch, rng)
        rows = np.unique([row for triplet in triplets for row in self._rows(triplet, rng)])
        pixels = read_pictures(self.model, [self.pictures[row] for row in rows])
        tokens, vectors = self.model.image_encoder(pixels.to(self.model.device))
        ids, mask = encode_texts(self.tokenizer, texts, device=self.model.device)
        places = np.searchsorted(rows, [triplet.reference for triplet in triplets])
        composed = self.model.composer(ids, mask, tokens[torch.from_numpy(places)])
        right = torch.from_numpy(np.stack([self.data.are_right(t, rows) for t in triplets])).to(self.model.device)
        similarity = similarities(composed.query_vectors, vectors, self.log_scale.exp().clamp(max=100))
        best = similarity.argmax(1)
        return {
            "loss": positives_loss(similarity, right),
            "_accuracy": right.gather(1, best[:, None]).float().mean(),
        }

    def _rows(self, triplet: Triplet, rng: np.random.Generator) -> list[int]:
        target = int(rng.choice(triplet.targets))
        vectors = self.data.features.vectors
        found = (vectors @ vectors[target]).topk(min(ALIKE_DEPTH, len(vectors))).indices.cpu().numpy()
        wrong = found[~self.data.are_right(triplet, found)]
        alike = rng.permutation(wrong)[: self.alike].tolist()
        return [triplet.reference, target, *rng.permutation(triplet.near)[: self.alike].astype(int).tolist(), *alike]


class HeldOutAnew:
    """Held-out queries, answered with the encoder as it is, among their pictures and ``VALIDATION_PICTURES`` others."""

    def __init__(
        self,
        model: CirModel,
        data: CustomData,
        triplets: tuple[NamedTriplet, ...],
        tokenizer: Tokenizer,
        *,
        seed: int,
    ) -> None:
        needed = {name for triplet in triplets for name in triplet.images()}
        others = [name for name in data.pictures if name not in needed]
        chosen = np.random.default_rng((seed, 4)).permutation(len(others))[:VALIDATION_PICTURES]
        kept: Mapping[str, ImageRecord] = {
            name: data.pictures[name] for name in (*sorted(needed), *(others[place] for place in chosen.tolist()))
        }
        self.data = CustomData(kept, data.triplets, data.excludes_reference)
        self.model, self.triplets, self.tokenizer = model, triplets, tokenizer

    @torch.no_grad()
    def score(self) -> float:
        """Encode the pictures and return the mean reciprocal rank."""
        tokens: list[NDArray[np.float16]] = []
        vectors: list[Tensor] = []
        records = list(self.data.pictures.values())
        for start in range(0, len(records), _BATCH):
            pixels = read_pictures(self.model, records[start : start + _BATCH]).to(self.model.device)
            encoded = self.model.image_encoder(pixels)
            tokens.append(encoded[0].half().cpu().numpy())
            vectors.append(encoded[1].float())
        features = PictureFeatures(np.concatenate(tokens), torch.cat(vectors), vectors[0][0])
        judged = triplet_set(self.data, features, self.triplets)
        held_out = HeldOut(self.model, judged, self.tokenizer, excludes_reference=self.data.excludes_reference)
        return held_out.reciprocal_rank()


def read_pictures(model: CirModel, records: Sequence[ImageRecord]) -> Tensor:
    """Read the pixels of pictures as the model wants them: float32 [B, 3, S, S]."""
    spec = preprocessing_of(model.sizes)
    return torch.from_numpy(np.stack([read_pixels(record.image, spec) for record in records]))
