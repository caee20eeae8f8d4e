"""Several processes: gradients are averaged, and what one wants all do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pipeline.training.loftup.processes import Processes

ROOT = Path(__file__).parents[4]
PROGRAM = """
import sys
import torch
from pipeline.training.loftup.processes import Accelerated

processes = Accelerated("cpu")
net = torch.nn.Linear(1, 1, bias=False)
module = processes.wrap(net)
processes.backward(module(torch.full((1, 1), float(2 * processes.rank + 1))).sum())
said = processes.any(processes.rank == 1), processes.any(False)
with open(f"{sys.argv[1]}/said_{processes.rank}", "w") as file:
    print(processes.count, net.weight.grad.item(), *said, file=file)
"""


def test_alone():
    processes = Processes("cpu")
    net = torch.nn.Linear(1, 1, bias=False)
    processes.backward(processes.wrap(net)(torch.full((1, 1), 3.0)).sum())
    assert (processes.rank, processes.count, net.weight.grad.item()) == (0, 1, 3.0)
    assert processes.any(True) and not processes.any(False)


def test_two_processes_train_together(tmp_path):
    pytest.importorskip("accelerate", reason="optional: pip install accelerate")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*launch, str(program), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):  # 2.0 is the mean of 1 and 3
        assert (tmp_path / f"said_{rank}").read_text() == "2 2.0 True False\n"
