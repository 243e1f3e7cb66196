"""The loader: the same batches from workers, the state of those that were given out, and transformers' Trainer."""

import json
from itertools import islice

import pytest
import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from longfocus.training.documents import ListedDocuments, TrainingDocument
from longfocus.training.loader import PackedLoader
from longfocus.training.mixture import Mixture
from longfocus.training.packing import PackedDataset, Packing
from longfocus.training.sources import Source


def dataset_of(epochs=1):
    def source(name, count):
        texts = ["".join(chr(3 + (7 * number + place) % 57) for place in range(9 * number)) for number in range(count)]
        documents = ListedDocuments(TrainingDocument(text, f"{name}{number}") for number, text in enumerate(texts))
        return Source(name, documents, lambda text: [1, *map(ord, text), 2], seed=0, epochs=epochs)

    mixture = Mixture([source("a", 8), source("b", 6)], {"a": 2, "b": 1}, seed=0)
    return PackedDataset(mixture, Packing.doc_aware_k(4, 8, 2), bos_token_id=1)


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(left[name], right[name]) for left, right in zip(one, other, strict=True) for name in left
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_and_states_are_those_of_the_dataset(workers):
    plain, loader = dataset_of(), PackedLoader(dataset_of(), workers)
    batches = []
    for batch, expected in zip(loader, plain, strict=True):
        batches.append(batch)
        assert same([batch], [expected])
        assert loader.state_dict() == plain.state_dict()
        assert loader.taken() == plain.taken()
    assert len(batches) > 4


@pytest.mark.parametrize("workers", [0, 2])
def test_going_on_loses_and_repeats_nothing(workers):
    """In another process's loader, and in the same one after its loop was left."""
    whole = list(dataset_of())
    loader = PackedLoader(dataset_of(), workers)
    found = list(islice(loader, 3))
    other = PackedLoader(dataset_of(), workers)
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert other.taken() == loader.taken()
    assert same(found + list(other), whole)
    assert same(found + list(loader), whole)


def test_a_plain_data_loader_gives_the_same_and_no_stale_state():
    dataset = dataset_of()
    found = list(DataLoader(dataset, batch_size=None, num_workers=2))
    assert same(found, list(dataset_of()))
    with pytest.raises(RuntimeError, match="ask the PackedLoader"):
        dataset.state_dict()
    dataset.load_state_dict(dataset_of().state_dict())
    assert same(list(dataset), found)


def test_a_trainer_takes_it_as_it_is(tmp_path):
    class Training(Trainer):
        seen = None

        def get_train_dataloader(self):
            return loader

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
            self.seen.append({name: tensor.clone() for name, tensor in inputs.items()})
            logits = model(inputs["input_ids"]).logits
            return functional.cross_entropy(logits.flatten(0, 1), inputs["labels"].flatten())

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=61, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    )
    settings = {
        "output_dir": str(tmp_path),
        "max_steps": 3,
        "gradient_accumulation_steps": 2,
        "report_to": [],
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
    dataset = dataset_of(epochs=4)
    loader = PackedLoader(dataset, workers=1)
    trainer = Training(model, TrainingArguments(**settings), train_dataset=dataset)
    trainer.seen = []
    trainer.train()
    expected = dataset_of(epochs=4)
    assert same(trainer.seen, list(islice(expected, 6)))
    assert loader.state_dict() == expected.state_dict()  # nothing that was made ahead counts
