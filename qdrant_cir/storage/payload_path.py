"""Paths into a payload, as Qdrant writes them: ``image_url``, ``media.main``, ``images[0].url``, ``images[].url``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from qdrant_cir.errors import InputError
from qdrant_cir.types import JsonValue

__all__ = ["PayloadPath"]

_STEP = re.compile(r'(?:^|\.)(?:([\w-]+)|"([^"]+)")|\[(\d*)\]')


@dataclass(frozen=True, slots=True)
class PayloadPath:
    """A parsed path.

    Attributes:
        text: as it was given.
        steps: field names, places in a list, and None for every element of a list.
    """

    text: str
    steps: tuple[str | int | None, ...]

    @classmethod
    def parse(cls, text: str) -> PayloadPath:
        """Read a path. Raises InputError where it is none."""
        if not isinstance(text, str):
            raise InputError(f"{text!r:.80} is no path into a payload. Expected a text such as image_url.")
        steps: list[str | int | None] = []
        end = 0
        while end < len(text):
            found = _STEP.match(text, end)
            if found is None:
                break
            name = found[1] or found[2]
            steps.append(name if name is not None else int(found[3]) if found[3] else None)
            end = found.end()
        if not steps or end < len(text) or not isinstance(steps[0], str) or text.startswith("."):
            raise InputError(
                f"{text!r} is no path into a payload. Expected one such as image_url, media.main, images[0].url or "
                "images[].url; a name with spaces or signs stands in double quotes."
            )
        return cls(text, tuple(steps))

    @property
    def field(self) -> str:
        """The top-level payload field that the path begins with."""
        return str(self.steps[0])

    @property
    def is_many(self) -> bool:
        """Whether the path names every element of a list, and so several pictures of one point."""
        return None in self.steps

    def strings(self, payload: Mapping[str, JsonValue]) -> tuple[str, ...]:
        """Return the texts that stand at the path, each once, in their order; none where there are none."""
        return tuple(dict.fromkeys(value for value in _values(payload, self.steps) if isinstance(value, str) and value))

    def values(self, payload: Mapping[str, JsonValue]) -> list[JsonValue]:
        """Return whatever stands at the path."""
        return list(_values(payload, self.steps))

    def texts(self, payload: Mapping[str, JsonValue]) -> tuple[str, ...]:
        """Return whatever stands at the path as text, so that another value is another text."""
        return tuple(repr(value) for value in _values(payload, self.steps))


def _values(value: JsonValue | Mapping[str, JsonValue], steps: tuple[str | int | None, ...]) -> Iterator[JsonValue]:
    if not steps:
        yield value  # type: ignore[misc]
        return
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if isinstance(value, Mapping) and step in value:
            yield from _values(value[step], rest)
    elif isinstance(value, list):
        chosen = value if step is None else value[step : step + 1]
        for element in chosen:
            yield from _values(element, rest)
