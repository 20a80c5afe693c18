"""Sentence templates that training never sees, with the fields of ``templates``.

They use only words of the training templates: a test text is new in its sentences, not in its words.
"""

from __future__ import annotations

from types import MappingProxyType

from qdrant_cir.drawn.templates import FormTemplates

__all__ = ["TEST_ONLY"]

TEST_ONLY: FormTemplates = MappingProxyType(
    {
        "recolour": {
            "noun": ("{part} that {is} {new}, not {old}", "{part} in {new} instead of {old}"),
            "order": ("i want {new} on the {part}", "make the {old} {part} {new}"),
            "claim": ("the {part} {is} not {old} but {new}", "{new} is the color of the {part}"),
        },
        "recolour_main": {
            "noun": ("{new} on the {part} instead of {old}",),
            "order": ("turn the {part} {new}",),
            "claim": ("the color of the {part} is {new}", "the {part} {is} not {old} but {new}"),
        },
        "recolour_whole": {
            "noun": ("{new} as base color",),
            "order": ("change the base color from {old} to {new}",),
            "claim": ("is not {old} but {new}", "should be {new} not {old}"),
        },
        "recolour_pattern": {
            "noun": ("the {things} of the {part} in {new}",),
            "order": ("turn the {old} {things} on the {part} {new}",),
            "claim": ("on the {part} the {things} are {new} not {old}",),
        },
        "repattern": {
            "noun": ("{a}{part} that {is} not {old} but {new}",),
            "order": ("change the {part} from {old} to {new}", "turn the {old} {part} {new}"),
            "claim": ("the {part} {is} not {old} but {new}", "the pattern of the {part} is {new}"),
        },
        "repattern_whole": {
            "noun": ("a print that is {new}",),
            "order": ("change the pattern from {old} to {new}",),
            "claim": ("is not {old} but {new}", "should be {new}"),
        },
        "repattern_add": {
            "noun": ("a pattern of {color} {things} on the {part}",),
            "order": ("give the {part} {color} {things}",),
            "claim": ("the plain {part} now {has} {color} {things}",),
        },
        "repattern_remove": {
            "noun": ("the {part} plain and not {old}",),
            "order": ("take the {were} off the {part}",),
            "claim": ("the {were} on the {part} are gone",),
        },
        "recount": {
            "noun": ("not {old} but {new} {part}",),
            "order": ("change the number of {parts} from {old} to {new}", "give it {new} {part}"),
            "claim": ("the number of {parts} is {new}", "it should not have {old} but {new} {part}"),
        },
        "recount_step": {
            "noun": ("{delta} of the {parts}",),
            "order": ("give it {delta} {unit}",),
            "claim": ("it has {delta} {unit} than this",),
        },
        "resize": {
            "noun": ("{a}{part} that {is} {more}",),
            "order": ("give it {a}{more} {part}",),
            "claim": ("the {part} {is} not {old} but {new}",),
        },
        "resize_whole": {
            "noun": ("{fa}{family} that {family_is} {more}",),
            "order": ("give me {fa}{more} {family}",),
            "claim": ("should be {more}", "is not {old} but {new}"),
        },
        "add": {
            "noun": ("{phrase} put on it",),
            "order": ("make it have {phrase}",),
            "claim": ("{phrase} {are} on it", "now there {are} also {phrase}"),
        },
        "remove": {
            "noun": ("the {part} left out",),
            "order": ("leave the {old} {part} away", "make it without the {part}"),
            "claim": ("it should not have {any}{part}", "no {part} should be there"),
        },
        "swap": {
            "noun": ("{part} in the color of the {other} and the other way around",),
            "order": ("give the {part} the color of the {other} and the other way around",),
            "claim": (
                "the {part} and the {other} switch colors",
                "the {part} {is} now {first} and the {other} {second}",
            ),
        },
        "recolour_all": {
            "noun": ("{new} all over",),
            "order": ("turn everything {new}", "give it all parts in {new}"),
            "claim": ("everything should be {new}",),
        },
    }
)
