"""The digest of the weights in a file: that of the module which was saved, and nothing of the file is run."""

import json
import os
import subprocess
import sys
import tracemalloc
import zipfile

import cloudpickle
import pytest
import torch
from torch import nn

from lightning_ifa.errors import FileError
from lightning_ifa.model.weights_digest import digest_weights
from lightning_ifa.tracking.checkpoint import load_checkpoint
from lightning_ifa.tracking.pickled_tensors import UnreadableTensor
from lightning_ifa.tracking.stored_tensors import BYTES
from lightning_ifa.tracking.weights import digest_file, digest_model, read_state, read_weights


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


def all_forms():
    """A tensor of every dtype, and views of every kind."""
    bits = torch.randint(0, 256, (192,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    state = {name: bits.clone().view(getattr(torch, name)) for name in BYTES if name != "bool"}
    shared = torch.arange(24.0)
    return state | {
        "bool": bits > 99, "0-d": torch.tensor(2.5), "empty": torch.ones(0), "none of 3": torch.ones(3, 0),
        "whole": shared, "middle": shared[5:9], "steps": shared[1::3],
        "turned": shared.reshape(2, 3, 4).permute(2, 0, 1), "expanded": torch.ones(2, 1).expand(2, 5),
        "turned twins": bits.clone().view(torch.bfloat16).reshape(12, 8).t(),
        "windows": shared.as_strided((4, 3), (1, 2)), "not a number": torch.full((2,), torch.nan),
    }  # fmt: skip


def test_every_dtype_and_view_has_the_digest_of_the_live_tensor(tmp_path):
    state = all_forms()
    for name, value in state.items():
        torch.save({name: value}, tmp_path / "one.pth")
        assert digest_file(tmp_path / "one.pth") == digest_weights({name: value}), name
    torch.save(state, tmp_path / "all.pth")
    assert (
        digest_file(tmp_path / "all.pth") == digest_weights(state) == digest_weights(read_state(tmp_path / "all.pth"))
    )
    plain = {name: value for name, value in state.items() if value.dtype == torch.float32}
    torch.save(plain, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert digest_file(tmp_path / "old.pth") == digest_weights(plain)


def rewritten(path, change, compress=zipfile.ZIP_STORED):
    """Change members of an archive: a function from name and content to pairs of them."""
    with zipfile.ZipFile(path) as archive:
        members = [pair for name in archive.namelist() for pair in change(name, archive.read(name))]
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in members:
            archive.writestr(name, content)


def test_a_file_from_a_machine_of_the_other_byte_order(tmp_path):
    state = {
        "complex": torch.randn(3, dtype=torch.complex64),
        "half": torch.randn(5).half(),
        "byte": torch.arange(3).bool(),
    }
    torch.save(state, tmp_path / "model.pth")
    rewritten(tmp_path / "model.pth", lambda name, old: [(name, b"big" if name.endswith("byteorder") else old)])
    turned = torch.load(tmp_path / "model.pth", weights_only=True)
    assert not torch.equal(turned["half"], state["half"])
    assert digest_file(tmp_path / "model.pth") == digest_weights(turned)


def safe_file(path, state):
    """Write safetensors by hand: the package need not be there."""
    head, content = {"__metadata__": {"format": "pt"}}, b""
    for name, value in state.items():
        kind = {torch.float32: "F32", torch.bfloat16: "BF16", torch.int64: "I64"}[value.dtype]
        added = value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        head[name] = {
            "dtype": kind,
            "shape": list(value.shape),
            "data_offsets": [len(content), len(content) + len(added)],
        }
        content += added
    text = json.dumps(head).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def test_safetensors(tmp_path):
    state = {name: value for name, value in Net().state_dict().items() if value.ndim}
    safe_file(tmp_path / "model.safetensors", state)
    assert digest_file(tmp_path / "model.safetensors") == digest_weights(state)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-1])
    with pytest.raises(FileError, match="another size"):
        digest_file(tmp_path / "model.safetensors")


def test_torch_is_not_imported(tmp_path):
    torch.save(Net(), tmp_path / "model.pth")
    safe_file(tmp_path / "model.safetensors", {"a": torch.ones(2)})
    code = (
        "import sys; from lightning_ifa.tracking.weights import digest_file; "
        "[digest_file(path) for path in sys.argv[1:]]; assert 'torch' not in sys.modules"
    )
    files = [tmp_path / "model.pth", tmp_path / "model.safetensors"]
    subprocess.run([sys.executable, "-c", code, *files], check=True)


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


def quantised():
    return torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


WITHOUT_BYTES = {
    "quantised": quantised,
    "sparse": lambda: torch.eye(2).to_sparse(),
    "meta": lambda: torch.ones(2, device="meta"),
    "conjugated": lambda: torch.ones(2).cfloat().conj(),
}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("value", WITHOUT_BYTES.values(), ids=WITHOUT_BYTES)
def test_tensors_without_bytes_are_refused_as_the_live_ones_are(value, tmp_path):
    torch.save({"sound": torch.ones(1), "other": value()}, tmp_path / "model.pth")
    with pytest.raises(TypeError, match="other has no bytes"):
        digest_weights({"sound": torch.ones(1), "other": value()})
    with pytest.raises(FileError, match="other has no bytes"):
        digest_file(tmp_path / "model.pth")


def pickled(*parts):
    """A pickle beside one storage of two numbers."""
    return b"\x80\x02" + b"".join(parts) + b"."


STORAGE = b"((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x02tQ"


def rebuilt(offset, shape, strides):
    number = lambda value: b"J" + value.to_bytes(4, "little", signed=True)  # noqa: E731
    lists = [b"(" + b"".join(map(number, values)) + b"t" for values in (shape, strides)]
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + STORAGE + number(offset) + b"".join(lists) + b"\x89}tR"


def named(tensor):
    return pickled(b"}X\x01\x00\x00\x00w", tensor, b"s")


HOSTILE = {
    "beyond": named(rebuilt(1, [2], [1])),
    "before": named(rebuilt(-1, [1], [1])),
    "backwards": named(rebuilt(1, [2], [-1])),
    "endless": named(rebuilt(0, [2**30, 2**30], [0, 0])),
    "far memo": pickled(b"}r\xff\xff\xff\x7f"),
    "long bytes": pickled(b"\x96" + (2**40).to_bytes(8, "little")),
    "deep": pickled(b"]" * 20_000 + b"a" * 19_999),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_what_a_hostile_pickle_says_of_a_tensor_is_not_believed(content, tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pth")
    rewritten(tmp_path / "model.pth", lambda name, old: [(name, content if name.endswith("data.pkl") else old)])
    tracemalloc.start()
    with pytest.raises(FileError, match=r"model\.pth"):
        digest_file(tmp_path / "model.pth")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26


def test_modules_that_hold_one_another(tmp_path):
    module = nn.Linear(1, 1)
    for _ in range(60):
        outer = nn.Module()
        outer.a = outer.b = module
        module = outer
    torch.save(module, tmp_path / "model.pth")
    with pytest.raises(FileError, match="more than 100,000 modules"):
        digest_file(tmp_path / "model.pth")


def test_the_pickle_of_the_hostile_cases_is_read_where_it_tells_the_truth(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "model.pth")
    content = named(rebuilt(0, [2], [1]))
    rewritten(tmp_path / "model.pth", lambda name, old: [(name, content if name.endswith("data.pkl") else old)])
    assert digest_file(tmp_path / "model.pth") == digest_weights({"w": torch.ones(2)})


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", ["twice", "packed", "behind"])
def test_archives_that_other_readers_might_read_otherwise_are_refused(kind, tmp_path):
    path = tmp_path / "model.pth"
    torch.save({"w": torch.ones(2)}, path)
    if kind == "behind":
        path.write_bytes(b"PK\x03\x04" + path.read_bytes())
    else:
        copies = 2 if kind == "twice" else 1
        rewritten(path, lambda name, old: [(name, old)] * copies, {"packed": zipfile.ZIP_DEFLATED}.get(kind, 0))
    with pytest.raises(FileError, match="does not write"):
        digest_file(path)


def test_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileError, match="no PyTorch weights"):
        digest_model(tmp_path)


@pytest.mark.parametrize("content", [b"root:x:0:0:root:/root:/bin/bash\n", b"", b"PK\x03\x04", b"\x80\x02}q\x00."])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "a.ckpt").write_bytes(content)
    with pytest.raises(FileError, match=r"a\.ckpt (is not|holds no)"):
        load_checkpoint(tmp_path / "a.ckpt")


def _store(pickled, path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
    return path


MODULE = b"\x80\x02cfoo\nBar\n)\x81q\x01}(X\x08\x00\x00\x00_modules}X\x01\x00\x00\x00nh\x01sub."
ENDLESS = {
    "nested keys": b"\x80\x02})" + b"".join(b"q\x01h\x01\x86" for _ in range(60)) + b"K\x01s.",
    "copies": b"\x80\x02](" + b"M\x00\x01" * 60_000 + b"eq\x010cbuiltins\nset\nq\x02("
    + b"h\x02h\x01\x85R" * 20_000 + b"l.",
    "a module that holds itself": MODULE,
}  # fmt: skip


@pytest.mark.parametrize("pickled", ENDLESS.values(), ids=ENDLESS)
def test_a_few_bytes_that_ask_for_endless_work_are_refused(pickled, tmp_path):
    with pytest.raises(FileError):
        read_weights(_store(pickled, tmp_path / "model.pth"))


def test_what_reads_a_file_is_not_changed_by_it(tmp_path):
    before = dict(vars(UnreadableTensor))
    pickled = b"\x80\x02ctorch.nn.parameter\nBuffer\nN}X\x08\x00\x00\x00__init__K\x05s\x86b."
    with pytest.raises(FileError):
        read_weights(_store(pickled, tmp_path / "model.pth"))
    assert dict(vars(UnreadableTensor)) == before
