"""Saved states on disk: the same gradients, states and no weights, nothing left behind, a full disk said in a line."""

import gc
import os

import pytest
import torch
from torch.testing import assert_close

from longfocus.errors import RequestError
from longfocus.training import offload
from longfocus.training.losses import compute_loss
from longfocus.training.offload import saved_on_disk
from tests.small_models import llama, long_llama

STATES = 50 * 32 * 2  # bytes of what a layer takes


def checkpointed(make=llama):
    model = make().bfloat16()
    model.activation_checkpointing_enable()
    return model


def inputs():
    ids = torch.randint(3, 61, (1, 50), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "labels": ids}


@pytest.fixture
def written(monkeypatch):
    """Shape and type of each tensor that goes to disk."""
    seen = []
    of = offload._OnDisk.of

    def watched(tensor, folder):
        seen.append((tuple(tensor.shape), tensor.dtype))
        return of(tensor, folder)

    monkeypatch.setattr(offload._OnDisk, "of", watched)
    return seen


@pytest.mark.parametrize("make", [llama, long_llama], ids=lambda make: make.__name__)
def test_gradients_stay_the_same_to_the_bit(make, tmp_path, written):
    model = checkpointed(make)
    loss = compute_loss(model, inputs())
    loss.backward()
    expected = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    with saved_on_disk(tmp_path, least_bytes=STATES):
        again = compute_loss(model, inputs())
    assert torch.equal(again, loss)
    again.backward()
    for name, weight in model.named_parameters():
        assert torch.equal(weight.grad, expected[name]), name
    assert written.count(((1, 50, 32), torch.bfloat16)) >= 3
    weights = {tuple(weight.shape) for weight in model.parameters()}
    assert not {shape for shape, _ in written} & (weights | {shape[::-1] for shape in weights})


def test_small_tensors_stay_in_memory(tmp_path, written):
    with saved_on_disk(tmp_path, least_bytes=10**6):
        compute_loss(checkpointed(), inputs()).backward()
    assert not written


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("view", [lambda t: t, lambda t: t.mT, lambda t: t[1:, ::2]], ids=["whole", "turned", "part"])
def test_tensors_come_back_to_the_bit(dtype, view, tmp_path):
    tensor = view(torch.randn(5, 6, dtype=dtype))
    assert torch.equal(offload._OnDisk.of(tensor, tmp_path).tensor(), tensor)


def test_a_gradient_may_be_taken_twice(tmp_path):
    weight = torch.randn(300, requires_grad=True)
    with saved_on_disk(tmp_path, least_bytes=1):
        output = (weight * 1.0).exp().sum()
    first = torch.autograd.grad(output, weight, retain_graph=True)[0]
    assert_close(torch.autograd.grad(output, weight)[0], first, rtol=0, atol=0)
    assert_close(first, weight.exp())


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux tells them")
def test_nothing_is_left_behind(tmp_path):
    def open_files():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    before = open_files()
    for backward in (True, False, True, False):
        with saved_on_disk(tmp_path, least_bytes=STATES):
            loss = compute_loss(checkpointed(), inputs())
        assert open_files() > before
        if backward:
            loss.backward()
            assert open_files() == before
        del loss
        assert open_files() == before
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path):
    with (
        pytest.raises(RequestError, match=r"Cannot keep 0 MB of a training step in .*missing: No such file"),
        saved_on_disk(tmp_path / "missing", least_bytes=STATES),
    ):
        compute_loss(checkpointed(), inputs())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(offload.tempfile, "TemporaryFile", lambda **_: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    with pytest.raises(RequestError, match="No space left"), saved_on_disk(tmp_path, least_bytes=STATES):
        compute_loss(checkpointed(), inputs())
