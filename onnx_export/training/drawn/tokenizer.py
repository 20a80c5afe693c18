"""The tokenizer of the bundle `drawn`: one id per word of the drawn catalogue's language."""

from __future__ import annotations

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from qdrant_cir.drawn.language import vocabulary

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[ENC]"]


def build_tokenizer() -> Tokenizer:
    """Build a lower-casing word tokenizer over the drawn vocabulary; any other word becomes [UNK]."""
    ids = {word: index for index, word in enumerate([*SPECIAL, *sorted(vocabulary())])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return tokenizer
