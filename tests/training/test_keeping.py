"""What a lesson in recall does so that its student goes on writing as before."""

import pytest
import torch
from torch.testing import assert_close

from longfocus.training.lessons import RecallLesson, with_lora
from tests.training.test_recall import labels_of, model_of, some


@pytest.fixture
def student():
    """With an adapter that does nothing yet."""
    return with_lora(model_of(), 4, ["q_proj", "v_proj"])


def disturb(student) -> None:
    torch.manual_seed(1)
    for name, parameter in student.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)


def batch(tokens: int = 12, rows: int = 3) -> dict[str, torch.Tensor]:
    asked = some(rows, 12, seed=1)
    return {"documents": some(rows, tokens), "asked": asked, "labels": labels_of(asked, padded=3)}


@pytest.mark.parametrize(("tokens", "most"), [(12, 1e-6), (48, 1e-6), (60, 0.1)])
def test_one_that_has_learnt_nothing_has_not_strayed(student, tokens, most):
    """Up to two windows, what is compared is the whole document; of a longer one its beginning is left out."""
    figures = RecallLesson(student, keep=1.0)(**batch(tokens))
    assert float(figures["strayed"]) == pytest.approx(0, abs=most)
    disturb(student)
    assert float(RecallLesson(student, keep=1.0)(**batch(tokens))["strayed"]) > float(figures["strayed"]) + 0.05


def test_the_divergence_is_that_of_its_definition(student):
    """In a document of one window: at every fourth place, what was predicted against what is."""
    disturb(student)
    given = batch()
    with torch.no_grad():
        found = RecallLesson(student, keep=1.0)(**given)
        now = student(given["documents"]).logits[:, ::4].log_softmax(-1)
        with student.disable_adapter():
            before = student(given["documents"]).logits[:, ::4].log_softmax(-1)
        expected = (before.exp() * (before - now)).sum(-1).mean()
    assert float(found["strayed"]) == pytest.approx(float(expected), rel=1e-4)


def test_it_counts_as_much_as_it_is_told(student):
    disturb(student)
    with torch.no_grad():
        plain, kept = RecallLesson(student)(**batch(tokens=60)), RecallLesson(student, keep=0.5)(**batch(tokens=60))
    assert "strayed" not in plain
    assert float(kept["loss"] - plain["loss"]) == pytest.approx(0.5 * float(kept["strayed"]), rel=1e-3)


def test_one_that_does_not_read_leaves_reading_as_it_was(student):
    """Its memory is that of the model without adapter, and gradients come by way of questions and answers alone."""
    disturb(student)
    given = batch(tokens=60)
    lesson = RecallLesson(student, bank=64, reads=False).train()
    with student.disable_adapter():
        wanted = RecallLesson(student, bank=64).train()
        wanted(**given)
    lesson(**given)["loss"].backward()
    read, plain = lesson.carried(), wanted.carried()
    assert read.keys() == plain.keys()
    for name in read:
        assert_close(read[name], plain[name])
    assert all(parameter.grad is not None for parameter in student.parameters() if parameter.requires_grad)
    always = RecallLesson(student, bank=64).train()
    always(**given)
    assert any(not torch.allclose(always.carried()[name], plain[name], atol=1e-2) for name in plain)


def test_gradients_lead_back(student):
    """A few steps on the divergence alone undo most of a disturbance."""
    disturb(student)
    lesson, given = RecallLesson(student, keep=1e4), batch()
    first = float(lesson(**given)["strayed"])
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        lesson(**given)["loss"].backward()
        optimizer.step()
    assert float(lesson(**given)["strayed"]) < first / 5


def test_memory_in_the_last_layer_is_refused():
    model = model_of(mem_layers=(3, 4))
    with pytest.raises(ValueError, match="last layer has memory"):
        RecallLesson(with_lora(model, 4, ["q_proj"]))(**batch())
