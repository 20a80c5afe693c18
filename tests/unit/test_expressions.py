"""Regular expressions of tokenizers: those of known ones are read, those that may take for ever are not."""

from __future__ import annotations

import pytest

from qdrant_cir.model.expressions import why_endless

KNOWN = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "CLIP": r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
    "GPT-4": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+",
    "GPT-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ll)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "DeepSeek": r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|"
    r" ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "BLOOM": r" ?[^(\s|[.,!?…。，、।۔،])]+",  # noqa: RUF001
    "thousands": r"(?=(\d{3})+(?!\d))",
    "spaces": r" {2,}",
    "words with a mark": r"\w+-\w+",
    "options": r"(?i)red|blue",
    "possessive": r"[a-z]++|\d*?",
    "posix": r"[[:alpha:]]+|[^[:space:]]",
    "bracket in a class": r"[]a]+|[^]b]*",
    "groups": r"(?<name>a|b)c|(?:ab)+|(?>a*)b|(?<=a)b|(?<!x)y",
    "closed twice": r"a)+",
    "open": r"(a",
    "a last backslash": "a\\",
    "an open class": "[abc",
    "braces that are text": r"a{b}|{x}",
}


@pytest.mark.parametrize("expression", KNOWN.values(), ids=KNOWN)
def test_an_expression_of_a_known_tokenizer_is_read(expression: str) -> None:
    assert why_endless(expression) is None


@pytest.mark.parametrize(
    "expression",
    [
        r"(a+)+",
        r"(a*)*",
        r"(?:a|a)*",
        r"(a|aa)+$",
        r"(a?){40}a{40}",
        r"(a{1,9}){2,}",
        r"((ab)+c?){2,}",
        r"((x+))*",
        r"(?i:(?:a+)b?)+",
        r"(?<name>a+)+",
        r"(?=(a+)+b)",
        r"(?>x|(a+)+)",
        r"([)]a+)+",
        r"([[a](a]a+)+",
        r"(\)a+)+",
        r"(\[a+)+]",
        r"(\p{L}+)*",
        r"(?i)(a+)+",
    ],
)
def test_a_repeat_of_what_varies_is_refused(expression: str) -> None:
    assert why_endless(expression) == "it repeats a group that holds a repeat or an alternative"


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (r"a*a*a*a*b", "more than 2 endless repeats"),
        (r"\s+(?:\s+(?:\s+(?:\s+x)))", "2 endless repeats, and then"),
        (r"x|\s{2,}\s{,9999}\s*\s+", "more than 2 endless repeats"),
        (r"a*a*(?<=b)", "2 endless repeats, and then"),
        (r"\s*\s*x|y", "2 endless repeats, and then"),
        (r"a*(?:a*x)", "2 endless repeats, and then"),
        (r"(?:a*a*)(?!b)", "2 endless repeats, and then"),
        (r"a?" * 30 + "a" * 30, "more than 100 ways"),
        (r"a{1,9}a{1,9}a{1,9}b", "more than 100 ways"),
        (r"(?:a|b|ab)(?:a|b|ab)(?:a|b|ab)(?:a|b|ab)(?:a|b|ab)c", "more than 100 ways"),
        (r"(?:a?){1}(?:(a?b?)?c?d?)?(e?f?)x", "more than 100 ways"),
        (r"a{0,200}b{200}c{0,9999}d", "2 endless repeats, and then"),
        (r"a{2}{3}{4}", "repeats a repeat"),
        (r"a+*", "repeats a repeat"),
        (r"(a+)\1", "refers to one of its groups"),
        (r"(?<n>a\g<n>)", "refers to one of its groups"),
        (r"\k<n>", "refers to one of its groups"),
        (r"(?#(a)a", "begins with '(?#('"),
        (r"(?x: a )", "begins with '(?x:'"),
        (r"(?~abc)", "begins with '(?~a'"),
        (r"(?(1)a|b)", "begins with '(?(1'"),
        (r"a" * 10_001, "longer than 10000"),
    ],
)
def test_what_known_tokenizers_do_not_use_is_refused(expression: str, reason: str) -> None:
    assert reason in (why_endless(expression) or "")


@pytest.mark.parametrize("expression", ["(" * 9_999, "[" * 9_999, "(" * 4_999 + ")" * 4_999, "a|" * 4_999, "{" * 9_999])
def test_a_long_expression_is_looked_at_at_once(expression: str) -> None:
    import time

    started = time.thread_time()
    why_endless(expression)
    assert time.thread_time() - started < 0.5
