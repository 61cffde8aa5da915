"""The command line; every command imports what it needs when it runs, so that ``--help`` answers at once."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lightning_ifa.text import keep_legal_xml

if TYPE_CHECKING:
    from lightning_ifa.offline.checkpoint_analysis import Analysed
    from lightning_ifa.offline.doctor import Line

FILE = click.Path(dir_okay=False, path_type=Path)
NO, UNDECIDED = 1, 2


class _Commands(click.Group):
    """Keeps 1 for "no": whatever ends a command otherwise than by its own word is 2, not Python's or click's 1."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command, and end with 2 after an interruption, a reader that went away, or an error nobody expected."""
        try:
            return super().invoke(context)
        except (KeyboardInterrupt, EOFError, click.Abort):
            _say_last("interrupted")
        except OSError as error:
            if error.errno != errno.EPIPE:
                traceback.print_exc()
            else:  # Python would try once more at its end, and fail once more
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        except (click.ClickException, click.exceptions.Exit):
            raise
        except Exception:
            traceback.print_exc()
        raise SystemExit(UNDECIDED)


def _say_last(words: str) -> None:
    from lightning_ifa.tracking.names import hide_secrets

    with suppress(OSError):
        click.secho(hide_secrets(words), fg="yellow", err=True)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="lightning-ifa")
def main() -> None:
    """Integrated feature analysis for PyTorch Lightning, tracked in MLflow.

    Exit codes: 0 yes, 1 no, 2 could not decide.
    """


def _training(name: str, about: str) -> None:
    """Add a command of LightningCLI; its options, and their help, are those of the classes that it makes."""

    @main.command(name, help=about, add_help_option=False, context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> None:
        from lightning_ifa.errors import ConfigError
        from lightning_ifa.training.lightning_cli import train

        with _undecided_after(f"lightning-ifa {name}", ConfigError):
            train(name, arguments)


_training("fit", "Train the model of a LightningCLI configuration: fit --config FILE [--trainer.max_epochs 3 ...].")


_training("validate", "Validate and analyse it: validate --config FILE [--ckpt_path FILE ...].")


def _names_model(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a model and its data."""
    options = [
        click.option(
            "--config", "configs", multiple=True, metavar="FILE", help="LightningCLI configuration of the training."
        ),
        click.option(
            "--model", metavar="MODULE:NAME", help="Without --config: the module, or a function that makes it."
        ),
        click.option(
            "--data", metavar="MODULE:NAME", help="Without --config: loaders, or what makes them, as for the gate."
        ),
        click.option(
            "--forward-fn", metavar="MODULE:NAME", help="With --model: function (model, batch) that calls it."
        ),
        click.option(
            "--batch-fn", metavar="MODULE:NAME", help="With --model: function from a batch to input and target."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return command


_CHECKPOINT = click.option(
    "--checkpoint", required=True, type=FILE, help="Lightning checkpoint, or a saved state_dict."
)


def _analysis_of(
    configs: tuple[str, ...],
    model: str | None,
    data: str | None,
    forward_fn: str | None,
    batch_fn: str | None,
    overrides: tuple[str, ...],
    nifti: bool = False,
) -> Callable[[Path], Analysed]:
    """Give what analyses a checkpoint of the model that the options name."""
    _require_one_way(configs, model, data, (forward_fn, batch_fn, nifti or None))
    from lightning_ifa.offline import checkpoint_analysis as offline

    if model and data:
        return lambda checkpoint: offline.analyze_factories(checkpoint, model, data, forward_fn, batch_fn, nifti)
    arguments = [f"--config={file}" for file in configs] + list(overrides)
    return lambda checkpoint: offline.analyze_config(checkpoint, arguments)


@main.command(context_settings={"ignore_unknown_options": True})
@_CHECKPOINT
@_names_model
@click.option("--nifti", is_flag=True, help="With --model: also write the maps of volumes as NIfTI over their images.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for report and tables.")
@click.option("--run-id", metavar="ID", help="Log to this MLflow run.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store of that run; by default MLflow's own.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def analyze(checkpoint: Path, output: Path | None, run_id: str | None, tracking_uri: str | None, **named: Any) -> None:
    """Analyse a CHECKPOINT as the callback would have, and print the verdicts.

    OVERRIDES are options of the configuration, as --data.batch_size=8. Without --output and --run-id the report goes
    to the folder ifa_report. Exit codes: 0 analysed, 2 not.
    """
    analyse = _analysis_of(**named)
    from mlflow.exceptions import MlflowException

    from lightning_ifa.data.untrusted_files import require_folder
    from lightning_ifa.errors import IFAError
    from lightning_ifa.offline import checkpoint_analysis as offline
    from lightning_ifa.report.markdown import summary
    from lightning_ifa.tracking.checkpoint import read_checkpoint
    from lightning_ifa.tracking.run import require_run

    if run_id:
        _quiet_client()
    folder = output or Path("ifa_report")
    with _undecided_after("not analysed", IFAError, MlflowException):
        read_checkpoint(checkpoint)  # what can be refused is refused before the work, not after it
        if run_id:
            require_run(run_id, tracking_uri)
        if output or not run_id:
            require_folder(folder)
        report = analyse(checkpoint).report
        click.echo(summary(report, str(checkpoint)))
        if output or not run_id:
            offline.save(report, folder)
        if run_id:
            try:
                offline.log(report, checkpoint, run_id, tracking_uri)
            except (IFAError, MlflowException):
                offline.save(report, folder)
                click.secho(f"the report is not lost, it lies in {folder}", fg="yellow", err=True)
                raise


@main.command(context_settings={"ignore_unknown_options": True})
@_CHECKPOINT
@_names_model
@click.option("--suspect", metavar="NAME", help="Metadata column, or hidden variable; by default the strongest.")
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("ifa_repair"),
    show_default=True,
    help="Folder for the repaired weights, table and report.",
)
@click.option("--cost", type=float, default=0.01, show_default=True, help="Overall accuracy that the repair may cost.")
@click.option("--policy", type=FILE, help="Judge the repaired weights by this gate's policy; see docs/gate.md.")
@click.option("--run-id", metavar="ID", help="MLflow run of the checkpoint: the repair is logged as its child.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store of that run; by default MLflow's own.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def repair(
    checkpoint: Path,
    suspect: str | None,
    output: Path,
    cost: float,
    policy: Path | None,
    run_id: str | None,
    tracking_uri: str | None,
    **named: Any,
) -> None:
    """Repair a CHECKPOINT whose evidence leans on a suspect, and say what was gained on samples kept apart.

    The last linear layer is refitted; the checkpoint itself is never changed. See docs/repair.md. Exit codes: 0
    repaired, and passed by the policy if there is one; 1 nothing helps, or the policy fails it; 2 could not be tried.
    """
    analyse = _analysis_of(**named)
    from mlflow.exceptions import MlflowException

    from lightning_ifa.comparison.rendering import comparison_text
    from lightning_ifa.data.untrusted_files import require_folder
    from lightning_ifa.errors import IFAError
    from lightning_ifa.gate import render
    from lightning_ifa.gate.policy import load_policy
    from lightning_ifa.offline import checkpoint_analysis as offline
    from lightning_ifa.offline import repaired_checkpoint as repaired
    from lightning_ifa.repairs.repair import foresee, try_repairs
    from lightning_ifa.tracking.checkpoint import read_checkpoint
    from lightning_ifa.tracking.run import require_run

    if run_id:
        _quiet_client()
    passed = True
    with _undecided_after("not repaired", IFAError, MlflowException):
        read_checkpoint(checkpoint)
        rules = load_policy(policy) if policy else None
        if run_id:
            require_run(run_id, tracking_uri)
        require_folder(output)
        path = repaired.require_new(output)
        before = analyse(checkpoint)
        bench = repaired.workbench_of(before, suspect)
        outlook = foresee(bench)
        click.echo(f"{outlook}.")
        found = try_repairs(before.sources["validation"][0].model, bench, outlook, cost)
        click.echo(str(found).partition("\n")[2])
        if not found.helped:
            raise SystemExit(NO)
        repaired.save_repair(found, path)
        after = analyse(path).report
        offline.save(after, output / repaired.REPORT_FOLDER)
        comparison = repaired.compare_reports(before.report, after)
        click.echo(f"\n{comparison_text(comparison)}\nweights: {path}")
        if rules is not None:
            verdict = repaired.judge(rules, before.report, after)
            passed = verdict.passed
            click.echo(render.terminal(verdict))
        if run_id:
            child = repaired.log_child(run_id, found, path, after, comparison, tracking_uri)
            click.echo(f"run {child} holds it, a child of {run_id}")
    raise SystemExit(0 if passed else NO)


@main.command(context_settings={"ignore_unknown_options": True})
@_names_model
@click.option("--checkpoint", type=FILE, help="Weights for the model; by default those it is made with.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store; by default the configuration's, or MLflow's own.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def doctor(
    configs: tuple[str, ...],
    model: str | None,
    data: str | None,
    forward_fn: str | None,
    batch_fn: str | None,
    checkpoint: Path | None,
    tracking_uri: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Say what is installed, where runs would go, and whether a model can be analysed; nothing is written.

    Model and data are given as for analyze, or not at all. Exit codes: 0 nothing stands in the way, 2 something does.
    """
    _require_one_way(configs, model, data, (forward_fn, batch_fn), required=False)
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    from lightning_ifa.errors import IFAError
    from lightning_ifa.offline import doctor as ask

    is_well = _show_lines("Installed", ask.list_packages())
    stores: Mapping[str, str] = {}
    network, weights = None, None if checkpoint is None else str(checkpoint)
    with _undecided_after("model and data cannot be made", IFAError):
        if configs:
            arguments = [f"--config={file}" for file in configs] + list(overrides)
            network, stores = ask.load_config(arguments, weights), ask.read_stores(configs)
        elif model and data:
            network = ask.load_factories(model, data, forward_fn, batch_fn, weights)
    is_well &= _show_lines("Tracking", ask.examine_tracking({} if tracking_uri else stores, tracking_uri))
    if network is not None:
        is_well &= _show_lines("Model and data", ask.examine_network(network))
    click.echo("Nothing stands in the way." if is_well else "See the lines marked with !.")
    raise SystemExit(0 if is_well else UNDECIDED)


def _show_lines(heading: str, lines: Iterable[Line]) -> bool:
    """Print a part of the diagnosis as it is found, and say whether all is well."""
    click.secho(heading, bold=True)
    found = True
    for line in lines:
        found &= line.is_well
        text = keep_legal_xml(line.text)
        click.echo(f"  {text}") if line.is_well else click.secho(f"! {text}", fg="yellow")
    click.echo()
    return found


def _require_one_way(
    configs: tuple[str, ...],
    model: str | None,
    data: str | None,
    options: tuple[Any, ...],
    required: bool = True,
) -> None:
    """Accept a configuration, or a model with its data, or, where neither is required, nothing."""
    given = bool(configs) + bool(model and data)
    if given > 1 or (required and not given) or bool(model) != bool(data):
        raise click.UsageError("give --config FILE, or --model MODULE:NAME and --data MODULE:NAME")
    if any(options) and not model:
        names = "--forward-fn, --batch-fn and --nifti"
        raise click.UsageError(f"{names} belong to --model; with --config the callback has them")


@main.command()
@click.argument("model")
@click.option("--policy", required=True, type=FILE, help="YAML file with the limits; see docs/gate.md.")
@click.option("--promote", metavar="ALIAS", help="Move this alias to the version if it passes.")
@click.option("--to", metavar="NAME", help="Copy a passing version to this protected registered model first.")
@click.option("--recompute", is_flag=True, help="Analyse the registered model anew, in a process without network.")
@click.option("--data", metavar="MODULE:NAME", help="Loaders for --recompute: a LightningDataModule, or a function.")
@click.option("--model", "architecture", metavar="MODULE:NAME", help="Take weights only, into what this makes.")
@click.option("--junit", type=FILE, help="Write the verdict as JUnit XML.")
@click.option("--json", "json_file", type=FILE, help="Write the verdict as JSON.")
@click.option("--dry-run", is_flag=True, help="Write nothing to MLflow.")
@click.option("--tracking-uri", metavar="URI", help="MLflow store; by default MLflow's own.")
def gate(
    model: str,
    policy: Path,
    promote: str | None,
    to: str | None,
    recompute: bool,
    data: str | None,
    architecture: str | None,
    junit: Path | None,
    json_file: Path | None,
    dry_run: bool,
    tracking_uri: str | None,
) -> None:
    """Judge MODEL, given as models:/NAME/VERSION, and promote it if it passes.

    Exit codes: 0 pass, and all that was asked for is done; 1 fail (a missing, infinite or foreign number is a fail);
    2 all else: could not decide, or not carry out what was decided.
    """
    _quiet_client()
    from lightning_ifa.errors import IFAError
    from lightning_ifa.gate import render
    from lightning_ifa.gate.run import gate as judge

    results = {file: kind for file, kind in ((junit, "junit"), (json_file, "json")) if file}
    _require_writable(results, policy, render.undecided(model, "the gate did not come to its end"))
    if recompute != (data is not None) or (architecture is not None and not recompute):
        raise click.UsageError("--recompute and --data MODULE:NAME belong together; --model MODULE:NAME needs both")
    if to is not None and promote is None:
        raise click.UsageError("--to NAME needs --promote ALIAS")
    try:
        reanalyze = None
        if data is not None:
            from lightning_ifa.offline.reanalysis import reanalyze as analyser

            reanalyze = analyser(data, tracking_uri, model=architecture)
        verdict = judge(
            model, policy, promote=promote, to=to, dry_run=dry_run, reanalyze=reanalyze, tracking_uri=tracking_uri
        )
    except IFAError as error:
        _say_last("could not decide: " + "\n".join(map(keep_legal_xml, str(error).split("\n"))))
        _write_results(results, render.undecided(model, str(error)))
        raise SystemExit(UNDECIDED) from None
    promoted = f"{'would promote' if dry_run else 'promoted'}: {keep_legal_xml(f'{to or model} {promote}')}"
    done = promote is not None and verdict.passed
    _write_results(results, render.decided(verdict), promoted if done else verdict.word)
    click.echo(render.terminal(verdict))
    if done:
        click.echo(promoted)
    raise SystemExit(0 if verdict.passed else NO)


def _require_writable(files: Mapping[Path, str], policy: Path, content: Mapping[str, str]) -> None:
    """Write to the result files, before anything else is, that there is no result: no old one stays."""
    places = [os.path.realpath(file) for file in files]
    if len(set(places) | {os.path.realpath(policy)}) <= len(places):
        raise click.UsageError("--junit, --json and --policy need files of their own")
    _write_results(files, content, "nothing was decided")


def _write_results(files: Mapping[Path, str], content: Mapping[str, str], done: str = "") -> None:
    """Write the result files; where one cannot be written, say what is done already, and end with 2."""
    try:
        for file, kind in files.items():
            file.write_text(content[kind], encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        _say_last(f"{done}{'; but ' if done else ''}a result file cannot be written: {error}")
        raise SystemExit(UNDECIDED) from None


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--tracking-uri", metavar="URI", help="MLflow store to use instead of the recorded one.")
def sync(folder: Path, tracking_uri: str | None) -> None:
    """Upload the analyses that wait in FOLDER since the tracking server was away.

    Exit codes: 0 all uploaded, 2 some are still waiting, or were never written to their end.
    """
    from lightning_ifa.tracking.failures import describe_failure
    from lightning_ifa.tracking.job import list_incomplete, remove_empty, replay
    from lightning_ifa.tracking.names import without_secret
    from lightning_ifa.tracking.saved_view import show_latest
    from lightning_ifa.tracking.spool import release

    release(folder)  # of a training that was killed before it was known which pictures are wanted
    complete = True
    runs: dict[str, str] = {}
    for job, error in replay(folder, tracking_uri, runs):
        complete = complete and error is None
        if error is None:
            click.echo(f"uploaded  {job}")
        else:
            click.secho(f"waits     {job}: {describe_failure(error)}", fg="yellow")
    remove_empty(folder)
    for run_id, uri in runs.items():
        show_latest(uri, run_id)
        click.echo(f"run {run_id} of {without_secret(uri)} holds them")
    for job in list_incomplete(folder):
        complete = False
        click.secho(f"partial   {job}: its training was killed while it wrote this, or still does", fg="yellow")
    raise SystemExit(0 if complete else UNDECIDED)


@main.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--force", is_flag=True, help="Compare runs on different validation data by the samples they share.")
@click.option("--log-to", metavar="RUN", help="Log table, figure and page to this run.")
@click.option("--html", type=FILE, help="Write the comparison as one self-contained page.")
@click.option("--figure", type=FILE, help="Write the comparison as a picture (PNG).")
@click.option("--tracking-uri", metavar="URI", help="MLflow store; by default MLflow's own.")
def compare(
    runs: tuple[str, ...],
    force: bool,
    log_to: str | None,
    html: Path | None,
    figure: Path | None,
    tracking_uri: str | None,
) -> None:
    """Compare the latest analyses of MLflow runs, given by their ids: each RUN with the first one.

    Exit codes: 0 compared, 2 not: the runs were analysed on different data, or cannot be read.
    """
    _quiet_client()
    from lightning_ifa.comparison.rendering import comparison_html, comparison_png, comparison_text
    from lightning_ifa.data.untrusted_files import require_folder
    from lightning_ifa.errors import IFAError
    from lightning_ifa.tracking.compare import compare as compare_runs

    with _undecided_after("not compared", IFAError):
        for file in filter(None, (html, figure)):
            require_folder(file.parent, create=False)
        found = compare_runs(*runs, tracking_uri=tracking_uri, force=force, log_to=log_to)
    picture = comparison_png(found) if html or figure else b""
    if figure:
        figure.write_bytes(picture)
    if html:
        html.write_text(comparison_html(found, picture), encoding="utf-8")
    click.echo(comparison_text(found), nl=False)


@main.group()
def view() -> None:
    """The saved view of an experiment."""


@view.command()
@click.argument("experiment")
@click.option("--tracking-uri", metavar="URI", help="MLflow store; by default MLflow's own.")
def install(experiment: str, tracking_uri: str | None) -> None:
    """Save a view in EXPERIMENT (its name) that opens on health, probe maps and scores of its runs.

    Exit codes: 0 saved, 2 not: the experiment, the server or its version is not known.
    """
    import mlflow
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    from lightning_ifa.errors import TrackingError
    from lightning_ifa.tracking.failures import require_answer
    from lightning_ifa.tracking.saved_view import install_view

    _quiet_client()
    with _undecided_after("nothing was changed", TrackingError, MlflowException):
        require_answer(tracking_uri or mlflow.get_tracking_uri())
        client = MlflowClient(tracking_uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            raise TrackingError(f"there is no experiment {experiment!r}")
        click.echo(f"saved; open it behind the server's address: {install_view(client, found.experiment_id)}")


@contextmanager
def _undecided_after(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Let these errors end a command with one line that begins with ``what``."""
    try:
        yield
    except errors as error:
        _say_last(f"{what}: {error}")
        raise SystemExit(UNDECIDED) from None


def _quiet_client() -> None:
    """Let MLflow's client draw no bars, and say after 13 s, not four minutes, that a server is dead."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")


if __name__ == "__main__":
    main()
