"""The digest of the weights in a file: that of the module which was saved, and nothing of the file is run."""

import os

import cloudpickle
import pytest
import torch
from torch import nn

from lightning_ifa.errors import FileError
from lightning_ifa.model.weights_digest import digest_weights
from lightning_ifa.tracking.checkpoint import load_checkpoint
from lightning_ifa.tracking.weights import digest_file, digest_model


class Command:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("was_run",)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).bfloat16(), nn.ReLU())
        self.names = {"tied": nn.ModuleList([self.net[0]]), "set": {1, 2}, "size": torch.Size([1]), "type": torch.int8}
        self.turned = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        self.turned.note = "an attribute of its own"
        self.register_buffer("kept", torch.ones(2))
        self.register_buffer("passing", torch.ones(2), persistent=False)

    def forward(self, x):
        return self.net[1](self.net[0](x).bfloat16()) + self.kept.sum() + self.passing.sum() + self.turned.sum()


SAVE = {
    "checkpoint": lambda net, path: torch.save({"state_dict": net.state_dict(), "other": torch.ones(1)}, path),
    "state dict": lambda net, path: torch.save(net.state_dict(), path),
    "module": lambda net, path: torch.save(net, path),
    "module by value": lambda net, path: torch.save(net, path, pickle_module=cloudpickle),
}


@pytest.mark.parametrize("kind", SAVE)
def test_files(kind, tmp_path):
    net = Net().eval()
    SAVE[kind](net, tmp_path / "model.pth")
    assert digest_file(tmp_path / "model.pth") == digest_weights(net.state_dict())


def test_a_traced_module(tmp_path):
    traced = torch.fx.symbolic_trace(Net())
    torch.save(traced, tmp_path / "model.pth")
    assert digest_file(tmp_path / "model.pth") == digest_weights(traced.state_dict())


@pytest.mark.filterwarnings("ignore:No complete tensor found")
def test_an_exported_module_in_the_folder_of_a_model(tmp_path):
    net = Net().eval()
    (tmp_path / "data").mkdir()
    torch.export.save(torch.export.export(net, (torch.zeros(2, 1, 8, 8),)), tmp_path / "data" / "model.pt2")
    assert digest_model(tmp_path) == digest_weights(net.state_dict())


def test_a_file_that_would_run_something_is_read_all_the_same(tmp_path):
    net = Net()
    expected, net.command = digest_weights(net.state_dict()), Command()
    torch.save(net, tmp_path / "model.pth")
    assert digest_file(tmp_path / "model.pth") == expected
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "save",
    [
        lambda path: path.write_bytes(b"no such file"),
        lambda path: torch.save(Command(), path),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.jit.trace(nn.Linear(1, 1), torch.ones(1)).save(path),
    ],
    ids=["damaged", "a command", "no weights", "a script"],
)
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_other_files_are_refused(save, tmp_path):
    save(tmp_path / "model.pth")
    with pytest.raises(FileError, match=r"model\.pth"):
        digest_file(tmp_path / "model.pth")
    assert not (tmp_path / "was_run").exists()


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileError, match="no PyTorch weights"):
        digest_model(tmp_path)


@pytest.mark.parametrize("content", [b"root:x:0:0:root:/root:/bin/bash\n", b"", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.ckpt (is not|holds no)"):
        load_checkpoint(tmp_path / "a.ckpt")
