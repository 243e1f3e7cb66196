import pytest
import torch


@pytest.fixture(scope="package", autouse=True)
def one_thread():
    """Models this small run faster on one thread, and much faster beside other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
