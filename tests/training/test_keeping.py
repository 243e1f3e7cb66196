"""What a lesson in recall does so that its student goes on writing as before."""

import pytest
import torch

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


def batch(tokens: int = 12, rows: int = 3, prose: tuple[int, ...] = (1, 2)) -> dict[str, torch.Tensor]:
    asked = some(rows, 12, seed=1)
    which = torch.tensor([row in prose for row in range(rows)])
    return {"documents": some(rows, tokens), "asked": asked, "labels": labels_of(asked, padded=3), "prose": which}


def test_one_that_has_learnt_nothing_has_not_strayed(student):
    """What fits one window is predicted alike with memory or without."""
    figures = RecallLesson(student, keep=1.0)(**batch())
    assert float(figures["strayed"]) == pytest.approx(0, abs=1e-6)
    disturb(student)
    assert float(RecallLesson(student, keep=1.0)(**batch())["strayed"]) > 1e-3


def test_the_divergence_is_that_of_its_definition(student):
    disturb(student)
    lesson, given = RecallLesson(student, keep=1.0), batch()
    with torch.no_grad():
        found = lesson(**given)
        ids = torch.cat((given["documents"], given["asked"]), dim=1)[1:]
        now = student(ids, last_context_length=24).logits[:, 12:-1].log_softmax(-1)
        with student.disable_adapter():
            before = student(ids, last_context_length=24).logits[:, 12:-1].log_softmax(-1)
        wanted = given["labels"][1:, 1:] != -100
        expected = (before.exp() * (before - now)).sum(-1)[wanted].mean()
    assert float(found["strayed"]) == pytest.approx(float(expected), rel=1e-4)


def test_it_counts_by_the_share_of_prose(student):
    disturb(student)
    with torch.no_grad():
        plain = RecallLesson(student)(**batch(tokens=60))
        kept = RecallLesson(student, keep=0.5)(**batch(tokens=60))
        none = RecallLesson(student, keep=0.5)(**batch(tokens=60, prose=()))
    assert "strayed" not in plain
    added = float(kept["loss"] - plain["loss"])
    assert added == pytest.approx(0.5 * float(kept["strayed"]) * 2 / 3, rel=1e-3)
    assert float(none["loss"]) == pytest.approx(float(plain["loss"]))
    assert float(none["strayed"]) == 0


def test_gradients_lead_back(student):
    """A few steps on the divergence alone undo most of a disturbance."""
    disturb(student)
    lesson, given = RecallLesson(student, keep=1e4), batch()
    first = float(lesson(**given)["strayed"])
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        figures = lesson(**given)
        figures["loss"].backward()
        optimizer.step()
    assert float(lesson(**given)["strayed"]) < first / 5
