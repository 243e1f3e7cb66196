"""What all tests share: no network, a small model, a Book that it read, and the default model once a session."""

import io
import json
import os
import random
import sys
from pathlib import Path

# Read when huggingface_hub is first imported, so set before any test module can do that.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
from hypothesis import HealthCheck, settings

# How fast examples are made tells of the machine, not of what is tested.
settings.register_profile("any machine", suppress_health_check=[HealthCheck.too_slow], deadline=None)
settings.load_profile("any machine")

_SLOW_SECONDS = 400
"""How long a slow test may take that says nothing else: what takes a minute on one processor takes four on another."""

_WORDS = [
    "river",
    "stone",
    "lamp",
    "captain",
    "winter",
    "garden",
    "letter",
    "quiet",
    "window",
    "harbour",
    "silver",
    "morning",
    "forest",
    "road",
    "answer",
    "engine",
    "music",
    "shadow",
    "copper",
    "mountain",
    "island",
    "paper",
    "summer",
    "voice",
    "night",
    "table",
    "bridge",
    "wheel",
    "orange",
    "theatre",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests may take longer than the others."""
    for item in items:
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_SLOW_SECONDS))


@pytest.fixture(scope="session")
def default_model_path() -> Path:
    """The default model, in the user's ordinary cache; a machine that cannot have it fails the test."""
    from longfocus.loading.default_model import default_model_dir

    return default_model_dir()


@pytest.fixture(scope="module")
def one_thread():
    """Models as small as the tests' run faster on one thread, and much faster beside other work."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def story(words: int, seed: int = 0) -> str:
    """Sentences of made-up words in paragraphs and chapters; letters of two bytes and of four among them."""
    chance = random.Random(seed)
    lines, count = [], 0
    while count < words:
        if len(lines) % 12 == 0:
            lines.append(f"\n\nChapter {len(lines) // 12 + 1}\n\n")
        length = chance.randint(5, 12)
        said = " ".join(chance.choice(_WORDS) for _ in range(length)).capitalize()
        lines.append(said + chance.choice([". ", "! ", "? ", " — é 🦊. ", ".\n\n"]))
        count += length
    return "".join(lines).strip() + "\n"


def write_tiny_model(folder: Path, seed: int = 0, **config: object) -> Path:
    """Write a small LLaMA with random weights and a byte-level tokenizer trained on such stories."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    made = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "initializer_range": 0.2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **config,
    }
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**made)).save_pretrained(folder)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|pad|>", "<|begin|>", "<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([story(2000, seed=9)], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|begin|>", "eos_token": "<|end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of four small layers with random weights, as a Hugging Face folder."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def tiny_model(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory):
    """The small model, loaded in float32 with a window of 64 tokens; memory in its layers 1 and 2."""
    from longfocus.loading.cache import CACHE_VARIABLE
    from longfocus.loading.load import load

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CACHE_VARIABLE, str(tmp_path_factory.mktemp("cache")))
        return load(tiny_folder, window=64, mem_layers=[1, 2], dtype="float32")


@pytest.fixture(scope="session")
def tiny_document():
    """A document of some 2,000 tokens with chapters."""
    from longfocus.memory.sections import Section
    from longfocus.reading.documents import Document

    text = story(1200)
    starts = [place for place in range(len(text)) if text.startswith("Chapter ", place)]
    ends = [*starts[1:], len(text)]
    chapters = tuple(
        Section("chapter", text[start:].split("\n", 1)[0], start, end) for start, end in zip(starts, ends, strict=True)
    )
    return Document("A Story", text, (0, len(text)), chapters)


@pytest.fixture(scope="session")
def tiny_book_folder(tiny_model, tiny_document, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document read by the small model; not to be changed, copy it."""
    from longfocus.reading.reader import read_steps

    folder = tmp_path_factory.mktemp("book") / "story.book"
    for _ in read_steps(tiny_document, tiny_model, folder):
        pass
    return folder


@pytest.fixture
def command_line(monkeypatch, capsys):
    """Return a function that runs `longfocus ARGUMENTS` in this process: exit status, stdout, stderr."""
    monkeypatch.setenv("THP_MEM_ALLOC_ENABLE", "0")  # `train` sets it otherwise

    def run(*arguments, stdin=""):
        from longfocus import cli

        monkeypatch.setattr(sys, "argv", ["longfocus", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run
