"""The tokenizer of a checkpoint, exactly as the checkpoint means it.

A `tokenizer.json` says everything, and is taken as it is: transformers' classes for single families rebuild parts of
it on loading. Where there is none, a SentencePiece `tokenizer.model` is converted; transformers' conversion leaves
out how SentencePiece treats spaces, which is put back here from the file itself, so that the tokens are
SentencePiece's own. Code that a checkpoint ships for its tokenizer is never run.
"""

import base64
import json
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.tokenization_utils_base import VERY_LARGE_INTEGER

from longfocus.errors import CheckpointError
from longfocus.model.config import LongLlamaConfig

_FORMS = (("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt"))
_ADDED = "added_tokens.json"
_BPE = 2  # SentencePiece's number for its model type


def vocabulary_files(folder: Path) -> list[Path]:
    """Return the files that say which text is which token.

    Raises:
        CheckpointError: There are none.
    """
    for form in _FORMS:
        files = [folder / name for name in form]
        if all(path.is_file() for path in files):
            more = [folder / _ADDED] if form != _FORMS[0] and (folder / _ADDED).is_file() else []
            return files + more
    raise CheckpointError(f"{folder} holds no tokenizer; wanted tokenizer.json or tokenizer.model.")


def load_tokenizer(folder: Path, config: LongLlamaConfig, kind: str) -> PreTrainedTokenizerFast:
    """Return the tokenizer of the checkpoint in `folder`, without a limit on a text's length.

    Args:
        folder: Holds the checkpoint.
        config: The model's; the tokens must fit its vocabulary.
        kind: The `model_type` that the checkpoint states.

    Raises:
        CheckpointError: It is missing, damaged, or of a form or size that the model cannot use.
    """
    first = vocabulary_files(folder)[0]
    tokenizer: PreTrainedTokenizerFast
    try:
        if first.name == "tokenizer.json":
            # For Mistral, transformers tells by itself whether a file has the way of cutting that needs mending.
            mend: dict[str, Any] = {"fix_mistral_regex": True} if kind == "mistral" else {}
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True, **mend)
        elif first.name == "tokenizer.model":
            tokenizer = _from_sentencepiece(folder)
        else:
            tokenizer = _from_class(folder, config)
    except CheckpointError:
        raise
    except Exception as error:  # the parser of tokenizer.json raises bare exceptions
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"The tokenizer in {folder} cannot be read ({reason[:200]}).") from error
    # Tokens that were added later may lie past the last row: models are published with an unused padding token there.
    if tokenizer.vocab_size > config.vocab_size:
        raise CheckpointError(
            f"The tokenizer in {folder} has {tokenizer.vocab_size} tokens and the model rows for {config.vocab_size}: "
            "they do not belong together."
        )
    tokenizer.model_max_length = VERY_LARGE_INTEGER  # a warning about long texts would be about every book
    return tokenizer


def _from_sentencepiece(folder: Path) -> PreTrainedTokenizerFast:
    from sentencepiece import sentencepiece_model_pb2
    from tokenizers import Tokenizer

    model: Any = sentencepiece_model_pb2.ModelProto()  # type: ignore[attr-defined]
    model.ParseFromString((folder / "tokenizer.model").read_bytes())
    if model.trainer_spec.model_type != _BPE:
        raise CheckpointError(f"{folder / 'tokenizer.model'} is no byte-pair encoding; wanted one, as LLaMA has.")
    converted = LlamaTokenizer.from_pretrained(str(folder), local_files_only=True)
    recipe = json.loads(converted.backend_tokenizer.to_str())
    settings = _settings(folder)
    # `legacy: false` asks for no space after a special token, which is how transformers converts every file.
    if settings.get("legacy") is not False:
        _treat_spaces(recipe, model.normalizer_spec)
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(recipe)),
        bos_token=converted.bos_token,
        eos_token=converted.eos_token,
        unk_token=converted.unk_token,
        pad_token=converted.pad_token,
        add_bos_token=settings.get("add_bos_token", True),
        add_eos_token=settings.get("add_eos_token", False),
        chat_template=converted.chat_template,
        padding_side=converted.padding_side,
        clean_up_tokenization_spaces=False,
    )


def _treat_spaces(recipe: dict[str, Any], spec: Any) -> None:
    """Make a tokenizer.json treat the spaces of each stretch of text as the SentencePiece model of `spec` does."""
    steps: list[dict[str, Any]] = []
    if spec.precompiled_charsmap:
        charsmap = base64.b64encode(spec.precompiled_charsmap).decode("ascii")
        steps.append({"type": "Precompiled", "precompiled_charsmap": charsmap})
    if spec.remove_extra_whitespaces:
        steps.append({"type": "Replace", "pattern": {"Regex": r"\A[ ▁]+|[ ▁]+\z"}, "content": ""})
        steps.append({"type": "Replace", "pattern": {"Regex": "[ ▁]{2,}"}, "content": " "})
    if spec.add_dummy_prefix:
        steps.append({"type": "Prepend", "prepend": "▁"})
    else:
        recipe["decoder"]["decoders"] = [step for step in recipe["decoder"]["decoders"] if step["type"] != "Strip"]
    steps.append({"type": "Replace", "pattern": {"String": " "}, "content": "▁"})
    recipe["normalizer"] = {"type": "Sequence", "normalizers": steps}
    recipe["pre_tokenizer"] = None


def _from_class(folder: Path, config: LongLlamaConfig) -> PreTrainedTokenizerFast:
    """The tokenizer of a vocabulary and its merges, which only the class that the checkpoint names can put together."""
    if "tokenizer_class" not in _settings(folder):
        raise CheckpointError(f"{folder} does not say which tokenizer its vocab.json is for; wanted a tokenizer.json.")
    made = AutoTokenizer.from_pretrained(str(folder), config=config, trust_remote_code=False, local_files_only=True)
    if not isinstance(made, PreTrainedTokenizerFast):
        raise CheckpointError(f"{folder} has a tokenizer of class {type(made).__name__}; wanted a tokenizer.json.")
    return made


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return {}
    settings = json.loads(path.read_text(encoding="utf-8"))
    return settings if isinstance(settings, dict) else {}
