"""The head that classifies a text by its last token."""

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, mse_loss
from torch.testing import assert_close

from longfocus.model.modeling import LongLlamaForSequenceClassification


@pytest.fixture
def classifier(tiny):
    return tiny(LongLlamaForSequenceClassification, num_labels=3)


def rows(some_ids, side):
    ids = some_ids(3, 40)
    mask = torch.ones_like(ids)
    for row, padding in enumerate((0, 11, 35)):
        mask[row, slice(None, padding) if side == "left" else slice(40 - padding, None)] = 0
    return ids.masked_fill(mask == 0, 0), mask


@pytest.mark.parametrize("side", ["left", "right"])
def test_each_row_by_its_last_token(classifier, some_ids, side):
    """Wherever its padding is, told by a mask or by the padding id; over several windows."""
    ids, mask = rows(some_ids, side)
    together = classifier(ids, attention_mask=mask).logits
    assert together.shape == (3, 3)
    for row in range(3):
        tokens = ids[row : row + 1, mask[row].bool()]
        states = classifier.model(tokens).last_hidden_state
        assert_close(together[row : row + 1], classifier.score(states[:, -1]), rtol=0, atol=1e-5)
    if side == "right":  # without a mask padding is read as tokens, but only after those that count
        assert_close(classifier(ids[:, :8]).logits, classifier(ids[:, :8], attention_mask=mask[:, :8]).logits)


def test_padding_id_tells_the_end_of_a_row(classifier, some_ids):
    ids = some_ids(2, 8)
    ids[1, 5:] = 0
    expected = classifier(ids[1:, :5]).logits
    assert_close(classifier(ids).logits[1:], expected, rtol=0, atol=1e-5)
    embeddings = classifier.model.embed_tokens(ids[:1])
    assert_close(classifier(inputs_embeds=embeddings).logits, classifier(ids[:1]).logits)


def test_the_tokens_before_have_a_say_through_memory(classifier, some_ids):
    ids = some_ids(2, 40)
    ids[1, 10:] = ids[0, 10:]
    first, second = classifier(ids).logits
    assert (first - second).abs().max() > 1e-3
    alone = classifier(ids[:1], last_context_length=40).logits
    assert (alone[0] - first).abs().max() > 1e-3, "last_context_length is passed on"


@pytest.mark.parametrize(
    ("labels", "count", "expected"),
    [
        (torch.tensor([2, 0, 1]), 3, cross_entropy),
        (torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1]]), 3, binary_cross_entropy_with_logits),
        (torch.tensor([0.5, -1.0, 2.0]), 1, lambda logits, labels: mse_loss(logits.squeeze(), labels)),
    ],
    ids=["one class", "several", "number"],
)
def test_losses(tiny, some_ids, labels, count, expected):
    model = tiny(LongLlamaForSequenceClassification, num_labels=count)
    output = model(some_ids(3, 20), labels=labels)
    assert_close(output.loss, expected(output.logits, labels))
    output.loss.backward()
    assert model.score.weight.grad.any()
    assert torch.equal(model(some_ids(3, 20), labels=labels, return_dict=False)[0], output.loss)


def test_a_batch_that_does_not_tell_where_rows_end(tiny, some_ids):
    model = tiny(LongLlamaForSequenceClassification, pad_token_id=None)
    ids = some_ids(2, 20)
    with pytest.raises(ValueError, match="batch sizes > 1"):
        model(ids)
    assert model(ids[:1]).logits.shape == (1, 2)
    assert model(ids, attention_mask=torch.ones_like(ids)).logits.shape == (2, 2)
