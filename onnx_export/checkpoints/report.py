"""The report of a conversion: what became of every key of its sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qdrant_cir.types import JsonObject


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The keys of one file or folder.

    Attributes:
        source: its name.
        used: keys whose tensors are in the model.
        ignored: keys that the model does not need, with the reason.
    """

    source: str
    used: tuple[str, ...]
    ignored: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class EncoderComparison:
    """Comparison of both stages' image encoders.

    Attributes:
        differing: keys whose tensors differ; none where training followed the paper, which freezes the encoder.
        largest_difference: between two corresponding numbers.
    """

    differing: tuple[str, ...]
    largest_difference: float

    @property
    def equal(self) -> bool:
        """Whether both stages have the same image encoder."""
        return not self.differing


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What became of every key, and which parameters had none.

    Attributes:
        sources: one report per file.
        fresh: parameters that no key filled, which start from random weights.
        encoders: both stages' image encoders compared; None where there is only one.
    """

    sources: tuple[SourceReport, ...]
    fresh: tuple[str, ...]
    encoders: EncoderComparison | None

    def to_object(self) -> JsonObject:
        """Return the report as JSON, every key by name."""
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
