"""Full attention is transformers' own over all tokens in one go, however they are cut and whatever was asked before."""

import json
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaForCausalLM

from longfocus.errors import RequestError
from longfocus.evaluation.subjects import full
from longfocus.evaluation.subjects.full import FullSubject
from longfocus.evaluation.task import Writing
from longfocus.loading.load import load
from longfocus.loading.prompts import encode_text
from longfocus.training.extend import EXTENSIONS, dynamic_ntk
from tests.conftest import story

TEXT, FOLLOWING, LONG = story(120), " " + story(30, seed=3), story(420)


@pytest.fixture(scope="module")
def plain(tiny_folder):
    """The small checkpoint, as transformers loads it."""
    return LlamaForCausalLM.from_pretrained(tiny_folder).eval()


@pytest.fixture(autouse=True)
def in_small_pieces(monkeypatch):
    monkeypatch.setattr(full, "_PIECE", 37)
    monkeypatch.setattr(full, "_PREDICTED", 11)
    monkeypatch.setattr(full, "ROOM", 40)


def ids_of(tiny_model, *parts):
    ids = [tiny_model.tokenizer.bos_token_id]
    for part in parts:
        ids += encode_text(tiny_model.tokenizer, part)
    return ids


def greedy(model, ids, most):
    found = model.generate(torch.tensor([ids]), max_new_tokens=most, do_sample=False, pad_token_id=0)
    return found[0, len(ids) :].tolist()


def test_it_answers_as_transformers_does(tiny_model, plain):
    """Each question by itself: what the cache holds of one is gone before the next."""
    with FullSubject(tiny_model).read(TEXT, "chat") as opened:
        found = [opened.reply(question, 8) for question in ("Where is it?", "Who came by the river?", "Where is it?")]
    assert found[0] == found[2] != found[1]
    for question, reply in zip(("Where is it?", "Who came by the river?"), found, strict=False):
        ids = ids_of(tiny_model, TEXT, "\n\nQuestion: ", question, "\nAnswer:")
        assert reply.prompt_tokens == len(ids) > 2 * 37
        assert reply.text == tiny_model.tokenizer.decode(greedy(plain, ids, 8), skip_special_tokens=True).strip()


def test_a_question_without_a_document(tiny_model, plain):
    ids = ids_of(tiny_model, "Question: ", "Where is the river?", "\nAnswer:")
    expected = tiny_model.tokenizer.decode(greedy(plain, ids, 6), skip_special_tokens=True).strip()
    with FullSubject(tiny_model).read("", "chat") as opened:
        assert [opened.answer("Where is the river?", 6) for _ in range(2)] == [expected, expected]


@pytest.mark.parametrize("document", ["", TEXT])
def test_losses_and_texts_are_those_of_one_pass(tiny_model, plain, document):
    ids, following = encode_text(tiny_model.tokenizer, document), encode_text(tiny_model.tokenizer, FOLLOWING)
    with FullSubject(tiny_model).read(document, "text") as opened:
        losses = [opened.loss(FOLLOWING) for _ in range(2)]
        written = opened.continued(FOLLOWING, Writing(7))
        cut = opened.continued(FOLLOWING, Writing(7, stop=(written[3:5], written[2:4])))
    with torch.inference_mode():
        logits = plain(torch.tensor([ids + following])).logits[0, len(ids) : -1].log_softmax(-1)
    expected = -float(logits[range(len(following) - 1), following[1:]].sum())
    assert losses[0] == losses[1] == (pytest.approx(expected, rel=1e-5), len(following) - 1)
    expected = tiny_model.tokenizer.decode(greedy(plain, ids + following, 7), skip_special_tokens=True)
    assert written == expected
    assert cut == written[: written.index(written[2:4])]


def test_sampling_is_repeatable(tiny_model):
    with FullSubject(tiny_model).read(TEXT, "text") as opened:
        first, again, other = (opened.continued(" It", Writing(9, temperature=1.5, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other


def test_it_takes_no_memory_for_its_weights(tiny_model):
    with FullSubject(tiny_model).read(TEXT, "chat") as opened:
        held = {weight.data_ptr() for weight in opened._model.parameters()}
    assert held == {weight.data_ptr() for weight in tiny_model.model.parameters()}


def test_too_long_for_its_positions(tiny_model):
    subject = FullSubject(tiny_model)
    tokens = 1 + subject.count(LONG)
    assert tokens > 512
    with (
        pytest.raises(RequestError, match=f"positions for 512 tokens, the document has {tokens} with its frame"),
        subject.read(LONG, "chat"),
    ):
        pass
    for text in (TEXT, ""):
        with subject.read(text, "chat") as opened, pytest.raises(RequestError, match="take a shorter document"):
            opened.answer(LONG, 5)


def test_an_answer_ends_where_positions_do(tiny_model, plain):
    text = story(290)
    ids = ids_of(tiny_model, text, "\n\nQuestion: ", "Who?", "\nAnswer:")
    assert 470 < len(ids) < 512
    with FullSubject(tiny_model).read(text, "chat") as opened:
        found = opened.answer("Who?", 1000)
    written = greedy(plain, ids, 512 - len(ids))
    assert found == tiny_model.tokenizer.decode(written, skip_special_tokens=True).strip()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_stretched_positions_are_transformers_own(tiny_model, tiny_folder, extension):
    ids = encode_text(tiny_model.tokenizer, LONG)
    length = len(ids) + 40
    config = EXTENSIONS[extension](tiny_model_config(tiny_folder), length)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, config=config).eval()
    rest = encode_text(tiny_model.tokenizer, story(200, seed=8))[:40]
    with torch.inference_mode():  # so long that "dynamic" turns as for the whole length from the beginning
        logits = model(torch.tensor([ids + rest])).logits[0, len(ids) : -1].log_softmax(-1)
    following = rest[:25]
    text = tiny_model.tokenizer.decode(following)
    assert encode_text(tiny_model.tokenizer, text) == following
    with FullSubject(tiny_model, extension).read(LONG, "text") as opened:
        loss, tokens = opened.loss(text)
    assert tokens == 24
    assert loss == pytest.approx(-float(logits[range(24), following[1:]].sum()), rel=1e-4)


def tiny_model_config(folder):
    return LlamaForCausalLM.config_class.from_pretrained(folder)


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_what_fits_is_not_stretched(tiny_model, extension):
    losses = []
    for way in (extension, "none"):
        with FullSubject(tiny_model, way).read(TEXT, "text") as opened:
            losses.append(opened.loss(FOLLOWING))
    assert losses[0] == losses[1]


def test_reading_in_pieces_matters_to_dynamic_positions(tiny_model, tiny_folder):
    """Why they are not left to transformers: its keys keep the base that they came with."""
    ids = encode_text(tiny_model.tokenizer, LONG)
    config = dynamic_ntk(tiny_model_config(tiny_folder), len(ids))
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, config=config).eval()
    with torch.inference_mode():
        whole = model(torch.tensor([ids])).logits[0, -1]
        first = model(torch.tensor([ids[:500]]), use_cache=True)
        behind = model(torch.tensor([ids[500:]]), past_key_values=first.past_key_values).logits[0, -1]
    assert not torch.allclose(whole, behind, atol=1e-2)


def test_layers_that_slide(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    folder = shutil.copytree(tiny_folder, tmp_path / "mistral")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mistral", "sliding_window": 100}
    config.pop("mlp_bias"), config.pop("attention_bias")
    (folder / "config.json").write_text(json.dumps(config))
    subject = FullSubject(load(folder, dtype="float32"), "linear")
    with subject.read(TEXT[:200], "chat") as opened:
        assert opened.answer("Who?", 3)
    with pytest.raises(RequestError, match=r"layers of .* attend to 100 tokens"), subject.read(TEXT, "chat"):
        pass


def test_what_cannot_be_had(tiny_model, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path))
    with pytest.raises(RequestError, match="no extension 'ntk'; there are linear, dynamic, yarn, none"):
        FullSubject(tiny_model, "ntk")
    placeless = load(tiny_folder, window=64, mem_layers=[1], dtype="float32")
    placeless.model.config.mem_positionals = False
    with pytest.raises(RequestError, match="know no positions"):
        FullSubject(placeless)


def test_identities_tell_subjects_apart(tiny_model):
    found = {FullSubject(tiny_model, way).identity for way in ("none", *EXTENSIONS)}
    assert len(found) == 4
    assert FullSubject(tiny_model).identity in found
