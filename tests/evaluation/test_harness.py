"""The harness: likelihoods are the model's own, texts of any length go through, its tasks run offline."""

import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from longfocus.errors import RequestError
from longfocus.evaluation.harness import SUITES, HarnessPlan, harness_model, run_harness
from longfocus.evaluation.results import attempts_in, grids
from longfocus.loading.prompts import encode_text
from tests.conftest import story

pytestmark = pytest.mark.slow  # importing the harness takes as long as all other tests of a file
pytest.importorskip("lm_eval")


@pytest.fixture
def tasks(tmp_path):
    """A folder with a task of two choices on a text of several windows, and one of writing."""
    rows = [{"text": story(120, seed=n), "first": " river", "second": " window", "right": n % 2} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = (
        f"dataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'rows.jsonl'}\ntest_split: test\n"
    )
    (tmp_path / "choice.yaml").write_text(
        f"task: two_choices\n{data}output_type: multiple_choice\ndoc_to_text: '{{{{text}}}}'\n"
        "doc_to_choice: ['{{first}}', '{{second}}']\ndoc_to_target: right\ntarget_delimiter: ''\n"
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    )
    (tmp_path / "writing.yaml").write_text(
        f"task: writing\n{data}output_type: generate_until\n"
        "doc_to_text: '{{text}}'\ndoc_to_target: '{{first}}'\n"
        "generation_kwargs:\n  until: ['\\n']\n  max_gen_toks: 4\n"
        "metric_list:\n  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n"
    )
    return tmp_path


def test_likelihoods_are_the_models(tiny_model):
    from lm_eval.api.instance import Instance

    text, following = story(120).strip(), " river and"
    request = Instance("loglikelihood", {}, (text, following), 0)
    ((found, greedy),) = harness_model(tiny_model).loglikelihood([request])
    ids = encode_text(tiny_model.tokenizer, text + following)
    asked = len(ids) - len(encode_text(tiny_model.tokenizer, text))
    with torch.inference_mode():
        logits = tiny_model.model(torch.tensor([ids[:-1]])).logits[0, -asked:].log_softmax(-1)
    assert len(ids) > 2 * tiny_model.model.config.window
    assert found == pytest.approx(float(logits[range(asked), ids[-asked:]].sum()), rel=1e-4)
    assert greedy == (logits.argmax(-1).tolist() == ids[-asked:])


@pytest.fixture
def beginning_model(tiny_model):
    """The small model with a tokenizer that puts a token before every text, as LLaMA's do."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = deepcopy(tiny_model.tokenizer)
    begin = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    return replace(tiny_model, tokenizer=tokenizer)


@pytest.mark.parametrize("context", ["It was the best of times,", ""])
def test_texts_begin_as_the_tokenizer_has_it(beginning_model, context):
    """The beginning of the sequence stands there once, also before nothing, and is not among what is predicted."""
    from lm_eval.api.instance import Instance

    model, following = harness_model(beginning_model), " it was the worst of times"
    ((found, _),) = model.loglikelihood([Instance("loglikelihood", {}, (context, following), 0)])
    bare = encode_text(beginning_model.tokenizer, context + following)
    ids = [beginning_model.tokenizer.bos_token_id, *bare]
    asked = len(bare) - len(encode_text(beginning_model.tokenizer, context))
    with torch.inference_mode():
        logits = beginning_model.model(torch.tensor([ids[:-1]])).logits[0, -asked:].log_softmax(-1)
    assert found == pytest.approx(float(logits[range(asked), ids[-asked:]].sum()), rel=1e-4)
    (rolled,) = model.loglikelihood_rolling([Instance("loglikelihood_rolling", {}, (following,), 0)])
    ids = [ids[0], *encode_text(beginning_model.tokenizer, following)]
    with torch.inference_mode():
        logits = beginning_model.model(torch.tensor([ids[:-1]])).logits[0].log_softmax(-1)
    assert rolled == pytest.approx(float(logits[range(len(ids) - 1), ids[1:]].sum()), rel=1e-4)


def test_texts_that_are_gone_on_with_begin_so_too(beginning_model, tiny_model, monkeypatch):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    seen = []
    generate = HFLM._model_generate

    def told(self, context, *arguments, **options):
        seen.append(context[0].tolist())
        return generate(self, context, *arguments, **options)

    monkeypatch.setattr(HFLM, "_model_generate", told)
    request = Instance("generate_until", {}, ("It was the best", {"until": ["\n"], "max_gen_toks": 2}), 0)
    for loaded in (beginning_model, tiny_model):
        harness_model(loaded).generate_until([request])
    bare = encode_text(tiny_model.tokenizer, "It was the best")
    assert seen == [[beginning_model.tokenizer.bos_token_id, *bare], bare]


def test_tasks_of_a_folder(tiny_model, tasks, tmp_path):
    plan = HarnessPlan(("two_choices", "writing"), limit=3, include=tasks)
    figures = {figure.task: figure for figure in run_harness(tiny_model, plan, tmp_path / "out")}
    choice = figures["harness:two_choices acc"]
    assert choice.examples == 3
    assert choice.score in (0.0, pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0)
    assert choice.low <= choice.score <= choice.high
    assert figures["harness:writing exact_match"].score == 0.0
    kept = json.loads((tmp_path / "out" / "harness.json").read_text())
    assert set(kept["results"]) == {"two_choices", "writing"}
    (choices,) = (g for g in grids(attempts_in([tmp_path / "out"])) if g.task == "harness:two_choices acc")
    ((name, (figure,)),) = choices.rows
    assert (name, figure.examples, figure.score) == ("model", 3, pytest.approx(choice.score))


def test_a_run_that_stops_asks_nothing_twice(tiny_model, tasks, tmp_path, monkeypatch):
    """Stopped after some answers, and again from the start: every request goes through the model once."""
    from lm_eval.models.huggingface import HFLM

    asked, call = [], HFLM._model_call

    def counted(self, inps, *arguments, **options):
        if len(asked) == 5:
            asked.append(None)
            raise KeyboardInterrupt
        asked.append(inps)
        return call(self, inps, *arguments, **options)

    monkeypatch.setattr(HFLM, "_model_call", counted)
    plan = HarnessPlan(("two_choices",), include=tasks)
    with pytest.raises(KeyboardInterrupt):
        run_harness(tiny_model, plan, tmp_path / "out")
    held = tmp_path / "out" / "harness" / "answers.jsonl"
    with held.open("a") as file:  # killed while it wrote
        file.write('["abc')
    first = run_harness(tiny_model, plan, tmp_path / "out")
    assert len([inps for inps in asked if inps is not None]) == 4 * 2  # choices
    again = run_harness(tiny_model, plan, tmp_path / "out")
    assert [figure.score for figure in again] == [figure.score for figure in first]
    assert len(asked) == 9
    assert len(held.read_text().splitlines()) == 8
    alone = run_harness(tiny_model, plan)
    assert [figure.score for figure in alone] == [figure.score for figure in first]
    assert len((tmp_path / "out" / "harness.jsonl").read_text().splitlines()) == 4


def test_tasks_that_there_are_not(tiny_model):
    with pytest.raises(RequestError, match="the harness has no task riddles"):
        run_harness(tiny_model, HarnessPlan(("riddles",)))


def test_the_suite_is_known_to_the_harness():
    from lm_eval.tasks import TaskManager

    assert set(SUITES["longllama"]) <= set(TaskManager().all_tasks)
