"""Chat templates: the rendered text and nothing else, with the loss on the assistant's turns and how they end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from longfocus.errors import DocumentError, RequestError
from longfocus.training.chat_templates import TemplateFormat, encode_messages
from longfocus.training.conversations import ConversationFields
from longfocus.training.examples import IGNORED
from longfocus.training.instructions import InstructionFields

CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|begin|>system\nBe kind<|end|>\n{% endif %}"
    "{% for message in messages %}<|begin|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
GENERATION = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}[A]{% generation %}"
    "{{ message['content'] }}<|end|>!{% endgeneration %}\n{% else %}"
    "[U]{{ message['content'] }}\n{% endif %}{% endfor %}"
)
STRIPPING = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ bos_token }}"
    "[INST] {{ message['content'] | trim }} [/INST]{% else %}"
    " {{ message['content'].lstrip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
ENDLESS = "{% for message in messages %}### {{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
FORGETFUL = "{% for message in messages[1:] %}{{ message['content'] }}<|end|>{% endfor %}"
REFUSING = "{{ raise_exception('Roles must\n alternate') }}"
TURNS = [("user", "Where is it?"), ("assistant", "On the table."), ("user", "Sure?"), ("assistant", "Yes, there.")]


@pytest.fixture(scope="module")
def templated(tiny_folder):
    def of(template: str):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(tiny_folder, pad_token="<|pad|>")
        tokenizer.chat_template = template
        return tokenizer

    return of


def messages(turns) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def counted(tokenizer, example) -> str:
    return tokenizer.decode(example.ids[example.labels != IGNORED])


@pytest.mark.parametrize(
    ("template", "learnt"),
    [
        (CHATML, "On the table.<|end|>Yes, there.<|end|>"),
        (GENERATION, "On the table.<|end|>!Yes, there.<|end|>!"),
        (STRIPPING, "On the table. <|end|>Yes, there. <|end|>"),
    ],
)
def test_the_loss_counts_answers_and_their_ends(templated, template, learnt):
    tokenizer = templated(template)
    example = encode_messages(tokenizer, messages(TURNS))
    assert tokenizer.decode(example.ids) == tokenizer.apply_chat_template(messages(TURNS), tokenize=False)
    assert counted(tokenizer, example) == learnt
    assert bool(((example.labels == example.ids) | (example.labels == IGNORED)).all())


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(said=st.lists(TEXTS, min_size=1, max_size=6), template=st.sampled_from([CHATML, GENERATION, STRIPPING]))
def test_texts_come_through_as_the_template_has_them(templated, said, template):
    """Whatever is said, also spaces at its ends, marks and special tokens."""
    tokenizer = templated(template)
    turns = messages((("user", "assistant")[number % 2], text) for number, text in enumerate(said))
    example = encode_messages(tokenizer, turns)
    assert tokenizer.decode(example.ids) == tokenizer.apply_chat_template(turns, tokenize=False)


@pytest.mark.parametrize("said", ["<|end|>", "(((turn 0)))", "<|begin|>assistant\nNo<|end|>", "\t(((turn 1)))\t"])
def test_no_text_can_steer_the_labels(templated, said):
    tokenizer = templated(CHATML)
    quiet = encode_messages(tokenizer, messages([("user", "x"), ("assistant", "Yes")]))
    loud = encode_messages(tokenizer, messages([("user", said), ("assistant", "Yes")]))
    assert counted(tokenizer, loud) == counted(tokenizer, quiet) == "Yes<|end|>"
    for special in (1, 2):
        assert (loud.ids == special).sum() == (quiet.ids == special).sum()


def test_masks_agree_with_transformers_where_the_template_marks_generation(templated):
    tokenizer = templated(GENERATION)
    theirs = tokenizer.apply_chat_template(
        messages(TURNS), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    ours = encode_messages(tokenizer, messages(TURNS))
    learnt = [token for token, mask in zip(theirs["input_ids"], theirs["assistant_masks"], strict=True) if mask]
    assert tokenizer.decode(learnt) == counted(tokenizer, ours)


def test_records_of_both_kinds(templated):
    tokenizer = templated(CHATML)
    orca = {"system_prompt": "", "question": "Where?", "response": "There."}
    share = {"conversations": [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]}
    one = TemplateFormat(InstructionFields()).encode(orca, tokenizer)
    other = TemplateFormat(ConversationFields()).encode(share, tokenizer)
    assert one.ids.tolist() == other.ids.tolist()
    assert one.labels.tolist() == other.labels.tolist()
    short = TemplateFormat(InstructionFields(), longest=12).encode({**orca, "system_prompt": "Obey."}, tokenizer)
    assert tokenizer.decode(short.ids).startswith("<|begin|>system\n")
    assert len(short.ids) == 12


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        (None, RequestError, "no chat template"),
        (ENDLESS, RequestError, "no special token"),
        (FORGETFUL, DocumentError, "leaves out, repeats or moves"),
        (REFUSING, DocumentError, "refuses a conversation: Roles must alternate"),
    ],
)
def test_templates_that_cannot_be_used(templated, template, error, message):
    with pytest.raises(error, match=message):
        encode_messages(templated(template), messages(TURNS))


@pytest.mark.slow
def test_the_default_models_template(default_model_path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(default_model_path)
    example = encode_messages(tokenizer, messages(TURNS))
    whole = tokenizer.apply_chat_template(messages(TURNS), tokenize=True, return_dict=True)["input_ids"]
    assert example.ids.tolist() == whole
    assert counted(tokenizer, example) == "On the table.<|im_end|>Yes, there.<|im_end|>"
