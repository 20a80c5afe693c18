"""What a conversion says of itself: every key of its sources, by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qdrant_cir.types import JsonObject


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of every key of one file or folder.

    Attributes:
        source: its name.
        used: keys whose tensors are in the model.
        ignored: keys that the model has no place for, on purpose, with the reason.
    """

    source: str
    used: tuple[str, ...]
    ignored: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EncoderComparison:
    """The image encoders of both stages.

    Attributes:
        differing: keys whose tensors are not equal; none where the recipe was followed, which freezes the encoder.
        largest_difference: between two numbers in the same place.
    """

    differing: tuple[str, ...]
    largest_difference: float

    @property
    def equal(self) -> bool:
        """Whether one image encoder serves both stages."""
        return not self.differing


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What became of every key, and what had none.

    Attributes:
        sources: one report per file.
        fresh: parameters of the model that no key filled and that start from random weights.
        encoders: both stages' image encoders compared; None where there is only one.
    """

    sources: tuple[SourceReport, ...]
    fresh: tuple[str, ...]
    encoders: EncoderComparison | None

    def to_object(self) -> JsonObject:
        """Give the report as JSON, every key by name."""
        encoders = self.encoders
        return {
            "sources": [
                {"source": report.source, "used": list(report.used), "ignored": dict(report.ignored)}
                for report in self.sources
            ],
            "fresh": list(self.fresh),
            "encoders": None
            if encoders is None
            else {"differing": list(encoders.differing), "largest_difference": encoders.largest_difference},
        }
