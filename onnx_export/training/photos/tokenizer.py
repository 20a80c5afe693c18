"""The tokenizer of the model for photographs: one id per word that training names."""

from __future__ import annotations

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from qdrant_cir.photographs.colours import COLOURS, HELD_OUT_COLOURS
from qdrant_cir.photographs.labels import KINDS
from qdrant_cir.photographs.wording import training_words

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[ENC]"]


def build_tokenizer() -> Tokenizer:
    """Build a lower-casing word tokenizer that drops punctuation; any word that training lacks becomes [UNK].

    A row for a word that is never trained would be noise, so only the words of the training texts have one.
    """
    names = tuple(colour.name for colour in COLOURS if colour.name not in HELD_OUT_COLOURS)
    words = training_words(names, tuple(KINDS.values()))
    ids = {word: index for index, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\W+"), "removed")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    return tokenizer
