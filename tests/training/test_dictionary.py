"""The paper's dictionary: what is asked was defined in the same document; and it is learnt, and read at any length."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from longfocus.model.cache import LongLlamaCache
from longfocus.model.config import LongLlamaConfig
from longfocus.model.modeling import LongLlamaForCausalLM
from longfocus.training.crossbatch import CrossBatchMemory, CrossDocuments
from longfocus.training.dictionary import Dictionary, DictionaryBatches, accuracy
from longfocus.training.engine import Run, train
from longfocus.training.fot import FotLesson, Growth, StepTeller
from longfocus.training.settings import settings

TASK = Dictionary(symbols=29, key=2, value=4)
ENTRIES = 4  # of a window


def model_of(task: Dictionary = TASK, entries: int = ENTRIES, layers: int = 3) -> LongLlamaForCausalLM:
    """As the paper's small models: no positions in the memory layer, queries and keys normalised.

    Where two layers come before it, the first can find which token of an entry one is and the second gather its key.
    """
    torch.manual_seed(0)
    config = LongLlamaConfig(
        vocab_size=task.vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=2,
        head_dim=64,
        mem_layers=[layers - 1],
        mem_positionals=False,
        mem_dtype="float32",
        qk_norm=True,
        initializer_range=0.1,
        tie_word_embeddings=True,
        window_length=entries * task.entry,
        last_context_length=entries * task.entry,
        pad_token_id=None,
    )
    return LongLlamaForCausalLM(config)


def test_what_is_asked_was_defined_in_the_same_document():
    task = Dictionary(symbols=7, key=2, value=3)
    ids, labels = task.documents(4, 10, 6, seed=3)
    assert ids.shape == labels.shape == (4, 16 * task.entry)
    assert int(ids.max()) < task.vocabulary
    told = ids.view(4, 16, task.entry)
    marks = [[7, 8]] * 10 + [[9, 8]] * 6
    assert told[:, :, [0, 3]].tolist() == [marks] * 4
    keys = [tuple(key) for key in told[:, :10, 1:3].flatten(0, 1).tolist()]
    assert len(set(keys)) == 40
    for row in range(4):
        values = dict(zip(keys[row * 10 : row * 10 + 10], told[row, :10, 4:].tolist(), strict=True))
        asked = [tuple(key) for key in told[row, 10:, 1:3].tolist()]
        assert len(set(asked)) == 6
        assert [values[key] for key in asked] == told[row, 10:, 4:].tolist()
    counted = labels != -100
    assert int(counted.sum()) == 4 * 6 * 3
    assert torch.equal(labels[counted], ids.roll(-1, dims=1)[counted])
    assert torch.equal(ids.roll(-1, dims=1)[counted].view(4, 6, 3), told[:, 10:, 4:])


def test_keys_that_are_alike():
    """Of few symbols at each place, each key once all the same; which symbols differs from place to place."""
    task = Dictionary()
    ids, _ = task.documents(4, 40, 5, seed=3, alike=4)
    keys = ids.view(4, 45, task.entry)[:, :40, 1:5].flatten(0, 1)
    assert len({tuple(key) for key in keys.tolist()}) == 160
    places = [set(keys[:, place].tolist()) for place in range(4)]
    assert [len(place) for place in places] == [4] * 4
    assert len(set.union(*places)) > 4
    assert torch.equal(task.documents(4, 40, 5, seed=3)[0], task.documents(4, 40, 5, seed=3, alike=61)[0])
    with pytest.raises(ValueError, match="4 symbols make no 257 keys of 4"):
        task.documents(1, 257, 5, seed=3, alike=4)


def test_a_batch_depends_on_its_number_alone():
    def batches(seed):
        return DictionaryBatches(TASK, documents=3, windows=3, entries=ENTRIES, seed=seed, length=9)

    one, other = batches(1), batches(1)
    assert torch.equal(one[5]["input_ids"], other[5]["input_ids"])
    assert not torch.equal(one[5]["input_ids"], one[6]["input_ids"])
    assert not torch.equal(one[5]["input_ids"], batches(2)[5]["input_ids"])
    assert one[5]["labels"].shape == (9, ENTRIES * TASK.entry)
    assert ((one[5]["labels"] != -100).sum(dim=1) > 0).tolist() == [False, False, True] * 3


@pytest.mark.parametrize(("given", "message"), [((1, 3, 4), "4 questions cannot"), ((30, 29, 1), "make no 870 keys")])
def test_documents_that_cannot_be_made(given, message):
    with pytest.raises(ValueError, match=message):
        TASK.documents(*given, seed=0)


def test_accuracy_is_that_of_windows_read_one_after_the_other():
    """The same from the cross-batch form, in which each window is a row."""
    model = model_of().eval()
    ids, labels = TASK.documents(6, 3 * ENTRIES, ENTRIES, seed=1)
    state = LongLlamaCache.of_memories({2: CrossBatchMemory(CrossDocuments(1, 4))}, 3)
    length = ENTRIES * TASK.entry
    with torch.no_grad():
        logits = model(ids.view(-1, length), past_key_values=state, use_cache=False).logits
        last = model(ids, use_cache=False).logits[:, -length:]
    assert_close(logits.view(6, 4, length, -1)[:, -1], last, rtol=1e-4, atol=1e-5)
    asked = labels.view(-1, length) != -100
    hits = (logits.argmax(-1) == labels.view(-1, length))[asked]
    assert accuracy(model, ids, labels) == pytest.approx(float(hits.float().mean()))


def taught(
    folder, model, growth: str, steps: int, task: Dictionary = TASK, entries: int = ENTRIES, documents: int = 32
) -> LongLlamaForCausalLM:
    """The model after so many steps; a document is a window of definitions and one of questions."""
    lesson = FotLesson(model, partial(CrossDocuments, packing=2), Growth.of(growth))
    data = DictionaryBatches(task, documents=documents, windows=2, entries=entries, seed=0, length=steps)
    arguments = settings(
        folder,
        steps=steps,
        rate=6e-3,
        seed=0,
        save_every=steps,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=40,
        adam_beta2=0.95,
        bf16=False,
        logging_steps=50,
    )
    train(Run(lesson, data, arguments, (StepTeller(lesson),)))
    return model.eval()


def test_it_begins_to_be_learnt_and_is_not_without_other_rows(tmp_path):
    """In seconds: two words to a window, of few symbols."""
    task, found = Dictionary(symbols=13, key=2, value=3), {}
    for growth, steps in (("1", 300), ("0", 100)):
        model = taught(tmp_path / growth, model_of(task, 2, 2), growth, steps, task, entries=2, documents=16)
        found[growth] = accuracy(model, *task.documents(60, 2, 2, seed=10**6))
    assert found["1"] > 0.3
    assert found["0"] < 0.15  # one in 13 by chance


@pytest.mark.slow
def test_it_is_learnt_and_negatives_keep_keys_apart(tmp_path):
    """Trained on documents of four words, then read by way of memory with up to 64 times as many."""
    found = {}
    for name, growth in {"positives": "1", "negatives": "1,8@300"}.items():
        model = taught(tmp_path / name, model_of(), growth, 450)
        for windows in (1, 16, 64):
            examples = max(192 // windows, 3)
            ids, labels = TASK.documents(examples, windows * ENTRIES, ENTRIES, seed=10**6)
            found[name, windows] = accuracy(model, ids, labels)
    assert min(found["positives", 1], found["negatives", 1]) > 0.95
    assert found["negatives", 16] > 0.93
    assert found["negatives", 64] > 0.85
    assert found["positives", 64] < found["negatives", 64] - 0.2
