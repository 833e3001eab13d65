"""Two processes train as one: the same weights on both, and those of one process with batches twice as large."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recfm.errors import ConfigError
from recfm.train.distributed import World, shard
from train_helpers import small_batches, small_fit, small_model

SGD = {"optimizer": "sgd", "learning_rate": 0.5, "epochs": 3, "schedule": "constant", "patience": 9, "monitor": "ne",
       "clip_norm": 0.5, "embedding_l2": 0.01, "checkpoint_every": 2}  # fmt: skip

PROGRAM = """
import json, sys
import torch
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from recfm.errors import RecfmError
from recfm.train.distributed import shard
from recfm.train.losses import LabelLoss
from test_distributed import SGD
from train_helpers import Stop, small_batches, small_fit, small_model

out, place = Path(sys.argv[2]), shard()
rank = place["rank"]

class Loss(LabelLoss):
    calls, stop = 0, None

    def forward(self, batch):
        self.calls += 1
        if self.calls == self.stop:
            raise Stop
        return super().forward(batch)

def fit(folder, stop=None, **more):
    torch.manual_seed(rank)  # what differs between the processes must not matter
    objective = Loss(small_model(dropout=0.0))
    objective.stop = stop
    if rank:
        torch.nn.init.zeros_(objective.model.head.weight)
    batches = small_batches(batch_size=45, **place)
    return small_fit(folder, model=objective, batches=batches, **(SGD | more))

def keep(name, objective, result, losses):
    torch.save(objective.model.state_dict(), out / f"weights-{name}-{rank}.pt")
    (out / f"curve-{name}-{rank}.json").write_text(json.dumps(result.curve))
    (out / f"losses-{name}-{rank}.json").write_text(json.dumps(sorted(losses)))

keep("whole", *fit(out / "whole"))
keep("memory", *fit(None))
try:
    fit(out / "stopped", stop=8)
except Stop:
    keep("resumed", *fit(out / "stopped", resume=True))
try:
    fit(None, learning_rate=1e3, clip_norm=0.0, embedding_l2=100.0)
except RecfmError as error:
    (out / f"error-{rank}").write_text(str(error))
"""


def start(folder, *, size=2):
    """Run PROGRAM in `size` processes as torchrun would start them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size),
                                "OMP_NUM_THREADS": "1", "RECFM_NUM_THREADS": "1"}  # fmt: skip
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(Path(__file__).parent), str(folder)]
    running = [
        subprocess.Popen(command, env=environment | {"RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(size)
    ]
    errors = [process.communicate(timeout=200)[1].decode() for process in running]
    return [process.returncode for process in running], errors


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    codes, errors = start(folder)
    assert codes == [0, 0], errors
    return folder


def weights(folder, case, rank):
    return torch.load(folder / f"weights-{case}-{rank}.pt")


@pytest.mark.slow
def test_both_processes_end_with_the_same_bytes(together):
    first, second = (weights(together, "whole", rank) for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)
    curves = [(together / f"curve-whole-{rank}.json").read_text() for rank in (0, 1)]
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(together):
    model = small_model(dropout=0.0)
    _, fit, _ = small_fit(model=model, batches=small_batches(batch_size=90), **SGD)
    found = weights(together, "whole", 0)
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(found[name], tensor, rtol=2e-4, atol=2e-6, err_msg=name)
    curve = json.loads((together / "curve-whole-0.json").read_text())
    for mine, theirs in zip(fit.curve, curve, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-4)


@pytest.mark.slow
def test_only_the_first_process_logs(together):
    steps = [json.loads(line)["step"] for line in (together / "whole" / "log.jsonl").read_text().splitlines()]
    assert steps == [5, 10, 15]
    assert json.loads((together / "losses-whole-0.json").read_text()) == list(range(1, 16))
    assert json.loads((together / "losses-whole-1.json").read_text()) == []


@pytest.mark.slow
@pytest.mark.parametrize("case", ["resumed", "memory"])
def test_a_stopped_run_resumes_on_both_and_none_needs_a_folder(together, case):
    for rank in (0, 1):
        straight, found = weights(together, "whole", 0), weights(together, case, rank)
        assert all(torch.equal(straight[name], found[name]) for name in straight)
    assert json.loads((together / "losses-resumed-0.json").read_text())[0] == 7


@pytest.mark.slow
def test_a_loss_that_diverges_stops_all_processes_with_the_same_error(together):
    found = [(together / f"error-{rank}").read_text() for rank in (0, 1)]
    assert all("the loss is" in text and "largest gradients" in text for text in found)


def test_outside_of_torchrun_there_is_one_process(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert shard() == {"rank": 0, "world_size": 1}
    world = World(0, 1, torch.device("cpu"))
    assert world.first
    assert world.mean([1.0, 2.0]) == [1.0, 2.0]
    assert world.gather("a") == ["a"]


def test_torchruns_variables_are_read(monkeypatch):
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert shard() == {"rank": 3, "world_size": 4}
    monkeypatch.delenv("WORLD_SIZE")
    with pytest.raises(ConfigError, match="WORLD_SIZE is None"):
        shard()


def test_another_processes_shard_is_refused():
    train, _ = small_batches(rank=1, world_size=2)
    with pytest.raises(ConfigError, match=r"training batches are shard 1 of 2, but this is process 0 of 1"):
        small_fit(batches=(train, small_batches()[1]))
