"""The command line: exit codes, files, lightness. No command is mocked."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from click.testing import CliRunner
from mlflow import MlflowClient
from registries import FAMILIES, Store, sound_metrics

from lightning_ifa.cli import main
from lightning_ifa.tracking.job import Job

ROOT = Path(__file__).parents[1]
GATE, STRICT = str(ROOT / "configs" / "gate.yaml"), str(ROOT / "configs" / "gate_strict.yaml")
DEAD = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("cli"))
    store.client.create_registered_model("leafnet")
    store.register("leafnet", sound_metrics())
    for family in FAMILIES:
        store.register("leafnet", sound_metrics() | {f"ifa/health/{family}": 0.5})
        store.register("leafnet", sound_metrics() | {f"ifa/health/{family}": 0.49})
    return store


def run(*arguments):
    return CliRunner().invoke(main, list(arguments), color=True)


def gate(store, version, *options, policy=GATE):
    return run("gate", f"models:/leafnet/{version}", "--policy", policy, "--tracking-uri", store.uri, *options)


def test_the_default_policy_passes_the_sound_one_and_promotes_it(registered, tmp_path):
    files = tmp_path / "junit.xml", tmp_path / "verdict.json"
    result = gate(registered, 1, "--promote", "champion", "--junit", str(files[0]), "--json", str(files[1]))
    assert result.exit_code == 0, result.output
    assert "PASS" in result.output
    assert "promoted: models:/leafnet/1 champion" in result.output
    assert registered.holder("leafnet") == "1"
    assert ElementTree.parse(files[0]).getroot().get("failures") == "0"
    assert json.loads(files[1].read_text())["verdict"] == "pass"


@pytest.mark.parametrize("policy", [GATE, STRICT])
@pytest.mark.parametrize("version", range(2, 2 + 2 * len(FAMILIES)))
def test_the_shipped_policies_refuse_each_alarm_and_each_family_that_cannot_be_told(registered, policy, version):
    result, family = gate(registered, version, "--dry-run", policy=policy), FAMILIES[(version - 2) // 2]
    accepts = policy == GATE and family == "confounding" and version % 2 == 0
    assert result.exit_code == (0 if accepts else 1), result.output
    assert family in result.output
    assert ("the policy accepts that" in result.output) == accepts


def test_the_strict_policy_wants_a_champion_and_then_passes(registered):
    refused = gate(registered, 1, "--dry-run", "--promote", "strict-champion", policy=STRICT)
    assert refused.exit_code == 1
    assert "there is no champion yet" in refused.output
    registered.client.set_registered_model_alias("leafnet", "strict-champion", "1")
    again = registered.register("leafnet", sound_metrics())
    result = gate(registered, again, "--dry-run", "--promote", "strict-champion", policy=STRICT)
    assert result.exit_code == 0, result.output
    assert "would promote" in result.output
    assert registered.holder("leafnet", "strict-champion") == "1"


def test_undecidable_is_two_and_says_why(registered, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    junit = tmp_path / "junit.xml"
    unknown = gate(registered, 99, "--junit", str(junit))
    assert unknown.exit_code == 2
    assert "could not decide" in unknown.output
    assert ElementTree.parse(junit).getroot().get("errors") == "1"
    assert run("gate", "models:/leafnet/1", "--policy", GATE, "--tracking-uri", DEAD).exit_code == 2


def test_a_faulty_policy_is_two_and_names_the_line(registered, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text(Path(GATE).read_text().replace("above: 0.5", "abvoe: 0.5", 1))
    line = policy.read_text().splitlines().index("    abvoe: 0.5") + 1
    result = gate(registered, 1, policy=str(policy))
    assert result.exit_code == 2
    assert f"line {line}: checks.0: unknown key; did you mean 'above'?" in result.output


@pytest.mark.parametrize("alias", ["", " ", "latest", "v1", "a b", "a\n"])
def test_aliases_that_no_registry_takes_are_two_before_anything_is_written(registered, alias):
    before = registered.state("leafnet")
    assert gate(registered, 1, "--promote", alias).exit_code == 2
    assert gate(registered, 1, "--promote", "champion", "--to", alias.replace("latest", "a/b")[:3]).exit_code == 2
    assert registered.state("leafnet") == before


@pytest.mark.parametrize("option", ["--junit", "--json"])
def test_a_result_that_cannot_be_written_is_two_before_anything_is_written(registered, tmp_path, option):
    before = registered.state("leafnet")
    assert gate(registered, 1, "--promote", "other", option, str(tmp_path / "none" / "x")).exit_code == 2
    assert gate(registered, 1, "--promote", "other", option, GATE).exit_code == 2
    assert registered.state("leafnet") == before


def test_no_old_result_stays(registered, tmp_path):
    file = tmp_path / "verdict.json"
    for wrong in ([], ["--to", "protected"], ["--recompute"], ["--promote", "latest"]):
        file.write_text('{"verdict": "pass"}')
        assert gate(registered, 99, *wrong, "--json", str(file)).exit_code == 2
        assert json.loads(file.read_text())["verdict"] == "undecided"


@pytest.mark.parametrize("error", [KeyboardInterrupt, EOFError, BrokenPipeError(errno.EPIPE, "x"), RecursionError])
def test_no_error_is_taken_for_a_no(registered, monkeypatch, error):
    import lightning_ifa.gate.run

    def broken(*_, **__):
        raise error

    monkeypatch.setattr(lightning_ifa.gate.run, "gate", broken)
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    assert gate(registered, 1).exit_code == 2


@pytest.mark.parametrize("options", [["--recompute"], ["--data", "a:b"], ["--to", "protected"], ["--nonsense"]])
def test_wrong_usage_is_two(registered, options):
    assert gate(registered, 1, *options).exit_code == 2


def test_data_that_cannot_be_imported_is_two(registered):
    result = gate(registered, 1, "--recompute", "--data", "no_such_module:loaders")
    assert result.exit_code == 2
    assert "expected MODULE:NAME" in result.output


def python(code, **environment):
    """Run code in a process of its own; what it printed."""
    environment = os.environ | environment
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["gate", "--help"], "--promote ALIAS"), (["analyze", "--help"], "--checkpoint FILE"), (["--help"], "validate")],
)
def test_help_imports_nothing_heavy(arguments, told):
    heavy = python(
        "import sys\nfrom lightning_ifa.cli import main\n"
        f"try:\n    main({arguments})\nexcept SystemExit: pass\n"
        "print(sorted({'torch', 'mlflow', 'numpy', 'pandas', 'pytorch_lightning'} & set(sys.modules)))"
    )
    assert heavy.endswith("[]\n")
    assert told in heavy


def test_the_gate_imports_no_lightning_and_draws_nothing(registered):
    # torch is read for one thing: the digest of the weights in the registered file
    code = (
        "import sys\nfrom lightning_ifa.cli import main\n"
        f"try:\n    main(['gate', 'models:/leafnet/1', '--policy', {GATE!r}, '--dry-run'])\n"
        "except SystemExit as end: print('exit', end.code)\n"
        "print(sorted({'pytorch_lightning', 'lightning', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    assert python(code, MLFLOW_TRACKING_URI=registered.uri).endswith("exit 0\n[]\n")


# sync


def job(spool, name, store, run_id):
    folder = spool / name
    (folder / "artifacts").mkdir(parents=True)
    (folder / "artifacts" / "note.txt").write_text(name)
    Job(run_id, store.uri, tags={"ifa.step": "7"}).save(folder)
    return folder


def test_sync_uploads_what_waits(registered, tmp_path):
    run_id = registered.run()
    folders = [job(tmp_path, name, registered, run_id) for name in ("a", "b")]
    result = run("sync", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert result.output.count("uploaded") == 2
    assert not any(folder.exists() for folder in folders)
    client = MlflowClient(registered.uri)
    assert client.get_run(run_id).data.tags["ifa.step"] == "7"
    assert "note.txt" in [artifact.path for artifact in client.list_artifacts(run_id)]
    assert run("sync", str(tmp_path)).exit_code == 0


def test_sync_keeps_what_cannot_be_uploaded_and_goes_on(registered, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    lost = job(tmp_path, "a", registered, "0" * 32)
    good = job(tmp_path, "b", registered, registered.run())
    result = run("sync", str(tmp_path))
    assert result.exit_code == 2
    assert "waits" in result.output
    assert "uploaded" in result.output
    assert lost.exists()
    assert not good.exists()
    assert run("sync", str(tmp_path), "--tracking-uri", DEAD).exit_code == 2
    assert lost.exists()


def test_sync_needs_a_folder(tmp_path):
    assert run("sync", str(tmp_path / "none")).exit_code == 2


def test_view_is_saved_in_an_experiment_that_exists(registered):
    name = registered.client.search_experiments()[0].name
    result = run("view", "install", name, "--tracking-uri", registered.uri)
    assert result.exit_code == 0, result.output
    assert "viewStateShareKey=lightning-ifa" in result.output
    missing = run("view", "install", "nowhere", "--tracking-uri", registered.uri)
    assert missing.exit_code == 2
    assert "there is no experiment 'nowhere'" in missing.output


def test_what_can_be_refused_is_refused_before_the_work(registered, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    torch.save({"weight": torch.ones(1)}, tmp_path / "x.ckpt")
    (tmp_path / "file").write_text("")
    work = ["--model", "work:net", "--data", "work:data"]  # which would be told as missing, if it began
    check = ["analyze", "--checkpoint", str(tmp_path / "x.ckpt"), *work]
    wrong = {
        "is not": ["analyze", "--checkpoint", "/etc/passwd", *work],
        "nothing can be written": [*check, "--output", str(tmp_path / "file" / "below")],
        "f" * 32: [*check, "--run-id", "f" * 32, "--tracking-uri", registered.uri],
        "nothing was changed": ["view", "install", "x", "--tracking-uri", DEAD],
    }
    for told, arguments in wrong.items():
        began = time.monotonic()
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert told in result.output
        assert "work" not in result.output
        assert "Traceback" not in result.output
        assert time.monotonic() - began < 20


def test_the_package_is_imported_at_once():
    code = "import time; t = time.process_time(); import lightning_ifa; print(time.process_time() - t)"
    found = [subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT) for _ in range(3)]
    assert min(float(each.stdout) for each in found) < 0.05
