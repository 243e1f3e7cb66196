"""The tokens that begin and end a sequence, and those that stand in padding."""

from typing import Any

from longfocus.errors import RequestError


def beginning(tokenizer: Any) -> list[int]:
    """The beginning-of-sequence token; nothing for a tokenizer that has none."""
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def ending(tokenizer: Any) -> list[int]:
    """The end-of-sequence token.

    Raises:
        RequestError: The tokenizer has none, so that a model could not learn to stop.
    """
    if tokenizer.eos_token_id is None:
        raise RequestError("the tokenizer has no end-of-sequence token, so answers would have no end; give it one")
    return [tokenizer.eos_token_id]


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of all tokens that text from outside never becomes."""
    added = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


def padding_id(tokenizer: Any) -> int:
    """The padding token, or else the unknown token, as LongLLaMA has it.

    Raises:
        RequestError: The tokenizer has neither.
    """
    for found in (tokenizer.pad_token_id, tokenizer.unk_token_id):
        if found is not None:
            return int(found)
    raise RequestError("the tokenizer has neither a padding token nor an unknown token; set its pad_token")
