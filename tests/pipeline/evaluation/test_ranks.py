"""Processes that share a job: alone, as the launcher's only one, and two of them."""

import multiprocessing

import pytest
import torch
import torch.distributed as dist

from pipeline.evaluation.ranks import Ranks, join_ranks
from tests.processes import FORK, launcher_settings


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for name in launcher_settings(1)[0]:
        monkeypatch.delenv(name, raising=False)


def test_alone():
    with join_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu"))
        assert ranks.gather({"a": [1]}) == [{"a": [1]}]
        assert ranks.any(True) and not ranks.any(False)
        net = torch.nn.Linear(1, 1)
        assert ranks.share(net) is net
        ranks.barrier()
        assert not dist.is_initialized()


def test_the_only_one_of_a_launcher(monkeypatch):
    for name, value in launcher_settings(1)[0].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RuntimeError, match="stop"), join_ranks("cpu") as ranks:
        assert ranks == Ranks(0, 1, torch.device("cpu"))
        assert dist.get_backend() == "gloo"
        raise RuntimeError("stop")
    assert not dist.is_initialized()  # left also after an error


def test_no_such_device():
    with pytest.raises(ValueError, match="device 'abacus' is not available"), join_ranks("abacus"):
        pass


def test_a_gpu_for_every_process(monkeypatch):
    for name, value in launcher_settings(2)[1].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("pipeline.evaluation.ranks.pick_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError) as caught, join_ranks():
        pass
    assert str(caught.value) == (
        "process 1 of this machine has no GPU of its own: there are 1; lower --nproc-per-node or "
        "add --device cpu"
    )


def _share(settings: dict[str, str], queue: multiprocessing.Queue) -> None:
    import os

    os.environ |= settings
    with join_ranks("cpu") as ranks:
        ranks.barrier()
        values = ranks.gather(("rank", ranks.rank, [None] * ranks.rank))
        net = torch.nn.Linear(1, 1, bias=False)
        module = ranks.share(net)
        module(torch.full((1, 1), float(2 * ranks.rank + 1))).sum().backward()
        said = ranks.any(ranks.rank == 1), ranks.any(False)
        queue.put((ranks.rank, ranks.world, values, net.weight.grad.item(), *said))


def test_two_processes():
    queue = FORK.Queue()
    processes = [
        FORK.Process(target=_share, args=(settings, queue), daemon=True)
        for settings in launcher_settings(2)
    ]
    for process in processes:
        process.start()
    found = sorted(queue.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    gathered = [("rank", 0, []), ("rank", 1, [None])]
    # 2.0 is the mean of the gradients 1 and 3
    assert found == [(rank, 2, gathered, 2.0, True, False) for rank in (0, 1)]
