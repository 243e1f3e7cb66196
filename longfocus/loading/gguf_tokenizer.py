"""A GGUF file's tokenizer as a `tokenizer.json`, with what transformers' conversion loses put back.

transformers rebuilds the vocabulary, the merges and the special tokens. It leaves out, for some families, how text
is cut before the merges apply, whether whole words skip the merges, and whether a text starts with a special token;
and it may add tokens that the model has no row for. Each is mended here from the file's own metadata, as llama.cpp
(whose format it is) reads it. A way of cutting text that we do not know is refused: a tokenizer that is nearly right
gives a model that is nearly right, and nobody would see it.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from longfocus.errors import CheckpointError
from longfocus.loading.gguf_header import GgufHeader

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

# The names that `tokenizer.ggml.pre` gives to ways of cutting text, grouped by what they need.
_PLAIN = frozenset({"gpt-2"})
_DIGITS_APART = frozenset({"smollm", "starcoder", "refact", "command-r"})
_WHOLE_WORDS = frozenset({"llama3", "llama-v3", "llama-bpe", "tekken"})
_QWEN = frozenset({"qwen2", "deepseek-r1-qwen"})
KNOWN_CUTS = _PLAIN | _DIGITS_APART | _WHOLE_WORDS | _QWEN


def load_tokenizer(header: GgufHeader, path: Path) -> "PreTrainedTokenizerFast":
    """The tokenizer in the GGUF file at `path`, which `header` is of; ready for `save_pretrained`."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    kind, cut = header.tokenizer("model"), header.tokenizer("pre")
    if kind not in ("gpt2", "llama"):
        raise CheckpointError(f"{header.path} has a tokenizer of kind {kind!r}; wanted 'gpt2' (BPE) or 'llama'.")
    if kind == "gpt2" and cut not in KNOWN_CUTS:
        raise CheckpointError(
            f"{header.path} cuts text in a way unknown here ({cut!r}); known are {', '.join(sorted(KNOWN_CUTS))}."
        )
    loaded = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    recipe = json.loads(loaded.backend_tokenizer.to_str())
    _mend(recipe, header)
    context = header.get("context_length")
    # The generic class keeps tokenizer.json as it is; the classes of single families rebuild parts of it on loading.
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(recipe)),
        bos_token=loaded.bos_token,
        eos_token=loaded.eos_token,
        pad_token=loaded.pad_token,
        unk_token=loaded.unk_token,
        add_bos_token=_adds_bos(header),
        add_eos_token=header.tokenizer("add_eos_token") is True,
        chat_template=loaded.chat_template,
        model_max_length=context,
        clean_up_tokenization_spaces=False,
    )


def _mend(recipe: dict[str, Any], header: GgufHeader) -> None:
    """Put right the parts of a tokenizer.json that transformers' conversion loses."""
    # The tokenizer classes bring the special tokens of the model that they were written for ("<|endoftext|>",
    # "<s>"). Where the vocabulary has none of that name, they are numbered past its end, where no embedding is.
    recipe["added_tokens"] = [token for token in recipe["added_tokens"] if token["id"] < header.token_count]
    cut = header.tokenizer("pre")
    if header.tokenizer("model") == "llama":
        # SentencePiece puts a space before every stretch of text; the class leaves it out where the text begins with
        # one, and so loses that one when the text is put together again.
        steps = [{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
        if header.tokenizer("add_space_prefix") is False:
            recipe["decoder"]["decoders"] = [step for step in recipe["decoder"]["decoders"] if step["type"] != "Strip"]
        else:
            steps.insert(0, {"type": "Prepend", "prepend": "▁"})
        recipe["normalizer"] = {"type": "Sequence", "normalizers": steps}
        recipe["pre_tokenizer"] = None
    elif cut in _DIGITS_APART:
        # Unknown to transformers, which would cut as GPT-2 does and keep the digits of a number together, so that
        # "\n\n1" becomes other tokens than the ones the model was trained on.
        recipe["pre_tokenizer"] = {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, recipe["pre_tokenizer"]],
        }
    elif cut in _WHOLE_WORDS:
        # A word that is itself in the vocabulary is taken whole, even where no merge leads to it.
        recipe["model"]["ignore_merges"] = True
    elif cut == "qwen2":
        # Qwen's own tokenizer composes accents first; the conversion has no normalizer.
        recipe["normalizer"] = {"type": "NFC"}


def _adds_bos(header: GgufHeader) -> bool:
    """Whether a text starts with the bos token: as the file says, or as llama.cpp does where it does not say."""
    stated = header.tokenizer("add_bos_token")
    if isinstance(stated, bool):
        return stated
    return header.tokenizer("model") == "llama" or header.tokenizer("pre") in _WHOLE_WORDS
