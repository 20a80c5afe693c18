"""Sentence templates of modification texts.

Three forms can follow a lead-in and be joined: ``noun`` phrases (after "with", "has"), ``order`` (imperative) and
``claim`` (a clause). Fields in braces: ``part`` the noun, ``is`` its verb, ``new`` and ``old`` the values, ``phrase``
the whole new part, ``other`` the second part of a swap, ``first`` and ``second`` their new colours, ``more`` a
comparative, ``things`` the noun for the pattern, ``were`` the old pattern.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, TypeAlias

__all__ = ["LEAD_INS", "TAILS", "TRAIN", "Form", "FormTemplates"]

Form: TypeAlias = Literal["noun", "order", "claim"]
FormTemplates: TypeAlias = Mapping[str, Mapping[Form, tuple[str, ...]]]

TRAIN: FormTemplates = MappingProxyType(
    {
        "recolour": {
            "noun": (
                "{new} {part}",
                "{new} {part} instead of {old}",
                "{new} {part} and not {old} ones",
                "{part} in {new}",
                "{new} instead of {old} {part}",
            ),
            "order": (
                "make the {part} {new}",
                "change the {part} to {new}",
                "change the {part} from {old} to {new}",
                "turn the {old} {part} {new}",
                "i want the {part} in {new}",
            ),
            "claim": (
                "the {part} {is} {new}",
                "the {part} should be {new}",
                "the {part} {is} {new} instead of {old}",
                "the {part} in {new}",
                "{part} {is} {new} not {old}",
                "the {old} {part} {is} now {new}",
            ),
        },
        "recolour_main": {
            "noun": ("{a}{new} {part}", "{a}{new} {part} instead of {old}", "{new} {part} and not {old}"),
            "order": ("make the {part} {new}", "change the {part} from {old} to {new}"),
            "claim": (
                "the {part} {is} {new}",
                "the {part} {is} {new} instead of {old}",
                "the {part} should be {new} not {old}",
                "only the {part} {is} {new}",
            ),
        },
        "recolour_whole": {
            "noun": (
                "a {new} base",
                "a {new} base color and not {old}",
                "{new} instead of {old} as base color",
            ),
            "order": ("make it {new}", "make it {new} instead of {old}", "change the base color to {new}"),
            "claim": (
                "is {new}",
                "is {new} instead of {old}",
                "is {new} not {old}",
                "the {family} {family_is} {new}",
            ),
        },
        "recolour_pattern": {
            "noun": (
                "{new} {things} on the {part}",
                "{new} {things} instead of {old} ones on the {part}",
                "{new} {things} on the {part} and not {old}",
            ),
            "order": (
                "make the {things} on the {part} {new}",
                "change the {things} of the {part} from {old} to {new}",
                "i want the {part} with {new} {things}",
            ),
            "claim": (
                "the {things} on the {part} are {new}",
                "the {things} of the {part} are {new} instead of {old}",
                "the {part} {has} {new} {things} not {old}",
                "the {old} {things} on the {part} are now {new}",
            ),
        },
        "repattern": {
            "noun": (
                "a {new} pattern on the {part}",
                "{new} instead of {old} {part}",
                "{a}{part} that {is} {new}",
            ),
            "order": (
                "make the {part} {new}",
                "change the pattern of the {part} from {old} to {new}",
                "make the {part} {new} instead of {old}",
                "change the {part} to {new}",
            ),
            "claim": (
                "the {part} {is} {new}",
                "the {part} {is} {new} instead of {old}",
                "the {part} should be {new}",
                "the {part} {is} {new} and not {old}",
                "{part} {is} {new} not {old}",
            ),
        },
        "repattern_whole": {
            "noun": ("a {new} pattern", "a {new} pattern instead of {old}", "a {new} and not {old} print"),
            "order": ("make it {new}", "change the pattern to {new}", "make it {new} instead of {old}"),
            "claim": (
                "is {new}",
                "is {new} instead of {old}",
                "is {new}, not {old}",
                "the {family} {family_is} {new}",
            ),
        },
        "repattern_add": {
            "noun": ("{color} {things} on the {part}", "{color} {things} all over the {part}"),
            "order": (
                "add {color} {things} to the {part}",
                "make the {part} {new} with {color}",
                "put {color} {things} on the {part}",
                "i want the {part} with {color} {things}",
            ),
            "claim": (
                "the {part} {has} {color} {things}",
                "the {part} {is} not plain but {has} {color} {things}",
                "there are {color} {things} on the {part}",
                "the {part} should have {color} {things}",
            ),
        },
        "repattern_remove": {
            "noun": (
                "no {were} on the {part}",
                "a solid color on the {part}",
                "{a}plain {part} without {were}",
            ),
            "order": (
                "make the {part} plain",
                "remove the {were} from the {part}",
                "i want the {part} without {were}",
                "make the {part} one solid color",
            ),
            "claim": (
                "the {part} {is} plain",
                "the {part} {is} solid instead of {old}",
                "the {part} {has} no {were}",
                "there are no {were} on the {part}",
                "the {part} {is} plain and not {old}",
            ),
        },
        "recount": {
            "noun": (
                "{new} {part}",
                "{new} {part} instead of {old}",
                "{new} {part}, not {old}",
                "only {new} {part}",
            ),
            "order": (
                "make it {new} {part}",
                "make it {new} {part} instead of {old}",
                "change the number of {parts} to {new}",
                "i want {new} {part}",
            ),
            "claim": (
                "there {are} {new} {part}",
                "there {are} {new} {part} instead of {old}",
                "it should have {new} {part}",
                "{new} {part} and not {old}",
            ),
        },
        "recount_step": {
            "noun": ("{delta} {unit}", "{delta} {unit} than this"),
            "order": ("i want {delta} {unit}", "make it {delta} {unit}"),
            "claim": ("there {are_delta} {delta} {unit}", "it should have {delta} {unit}"),
        },
        "resize": {
            "noun": ("{a}{more} {part}", "{a}{new} {part}", "{a}{new} {part} instead of {old}"),
            "order": ("make the {part} {more}", "i want {a}{more} {part}", "make the {part} {new}"),
            "claim": (
                "the {part} {is} {more}",
                "the {part} should be {more}",
                "the {part} {is} {new} not {old}",
                "{part} {is} {new} instead of {old}",
            ),
        },
        "resize_whole": {
            "noun": ("{fa}{more} {family}", "{fa}{new} {family} instead of {old}", "{fa}{new} {family}"),
            "order": ("make it {more}", "i want it {more}", "make it {new} instead of {old}"),
            "claim": ("is {more}", "is {new}", "is {new} not {old}", "is {more} than this"),
        },
        "add": {
            "noun": ("{phrase}", "{phrase} added", "{phrase} as an extra", "{phrase} too"),
            "order": ("add {phrase}", "put {phrase} on it", "give it {phrase}", "i want {phrase} on it"),
            "claim": (
                "there {are} {phrase}",
                "it should have {phrase}",
                "it also has {phrase}",
                "it comes with {phrase}",
            ),
        },
        "remove": {
            "noun": ("no {part}", "no {old} {part}", "no {part} at all"),
            "order": (
                "remove the {part}",
                "take off the {part}",
                "take the {old} {part} away",
                "leave out the {part}",
            ),
            "claim": (
                "there {are} no {part}",
                "it does not have {any}{part}",
                "the {part} {is} gone",
                "it is without the {part}",
                "the {part} {is} left out",
            ),
        },
        "swap": {
            "noun": (
                "the colors of the {part} and the {other} swapped",
                "{first} {part} and {second} {other}",
            ),
            "order": (
                "swap the colors of the {part} and the {other}",
                "swap the colours of {other} and {part}",
                "switch the colors of the {part} and the {other}",
                "make the {part} {first} and the {other} {second}",
            ),
            "claim": (
                "the {part} and the {other} swap colors",
                "the colors of {part} and {other} are swapped",
                "the {part} {has} the color of the {other} and the other way around",
                "the {part} {is} {first} and the {other} {other_is} {second}",
            ),
        },
        "recolour_all": {
            "noun": ("everything in {new}", "all parts in {new}"),
            "order": ("make everything {new}", "make it all {new}", "change all the colors to {new}"),
            "claim": (
                "everything is {new}",
                "all parts are {new}",
                "it is {new} all over",
                "it is all {new}",
            ),
        },
    }
)

LEAD_INS: Mapping[Form, tuple[str, ...]] = MappingProxyType(
    {
        "noun": (
            "has {text}",
            "with {text}",
            "same {family} with {text}",
            "same {family} but with {text}",
            "the same {family}, but with {text}",
            "a similar {family} with {text}",
            "similar but has {text}",
            "like this {family} but with {text}",
            "has the same look with {text}",
            "this {family} but with {text}",
            "exactly like this with {text}",
            "i would like the same {family} with {text}",
            "give me the same one with {text}",
            "find this {family} with {text}",
            "{text}",
            "{text}",
        ),
        "order": (
            "{text}",
            "{text}",
            "please {text}",
            "keep everything but {text}",
            "same {family}, but {text}",
            "{text} please",
            "could you {text}",
            "i would like you to {text}",
        ),
        "claim": (
            "{text}",
            "{text}",
            "same {family} but {text}",
            "the same {family}, only {text}",
            "i like this {family} but {text}",
            "like this one but {text}",
            "it is the same but {text}",
            "exactly this {family} but {text}",
        ),
    }
)

TAILS = (
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    ", the rest is the same",
    ", nothing else changes",
    ", everything else as it is",
    ", keep the rest",
    ", the {kept} {stays} {look}",
    " and the {kept} {stays} {look}",
    ", keep the {kept} {look}",
)
"""Endings of a text: ``kept`` is a part that the edit does not change, ``look`` its colour."""
