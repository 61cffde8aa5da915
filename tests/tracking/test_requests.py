"""What an analysis costs a real tracking server and the training thread."""

from __future__ import annotations

import time

from lightning_modules import fit
from mlflow import MlflowClient
from pytorch_lightning.loggers import MLFlowLogger

from lightning_ifa.tracking.saved_view import TAG
from lightning_ifa.training.callback import IntegratedFeatureAnalysis

MOST_REQUESTS = 20


class Watched(IntegratedFeatureAnalysis):
    """Notes how long the training thread is held; waits for the uploads, so that requests belong to one analysis."""

    def __init__(self, proxy, **options):
        super().__init__(on_error="raise", **options)
        self.proxy, self.blocked, self.requests, self.before = proxy, [], [], 0

    def on_validation_epoch_end(self, trainer, pl_module):
        self.before = len(self.proxy.seen)
        super().on_validation_epoch_end(trainer, pl_module)

    def on_validation_end(self, trainer, pl_module):
        fresh = bool(self.session.run_logger._waiting)
        began = time.perf_counter()
        super().on_validation_end(trainer, pl_module)
        if fresh:
            self.blocked.append(time.perf_counter() - began)
            self.wait()
            self.requests.append(len(self.proxy.seen) - self.before)

    def wait(self, quiet=4.0):
        """Until the sink's batch of tags, which comes last, and nothing after it."""
        since, count = time.monotonic(), len(self.proxy.seen)
        uploads = [path for method, path in self.proxy.seen[self.before :] if method == "PUT"]
        while not uploads or time.monotonic() - since < quiet:
            time.sleep(0.05)
            if len(self.proxy.seen) != count:
                since, count = time.monotonic(), len(self.proxy.seen)
            uploads = [path for method, path in self.proxy.seen[self.before :] if method == "PUT"]


def test_requests_of_an_analysis(proxy, tmp_path):
    """With eight probes, the default; the first epoch also brings the single probes and the saved view."""
    callback = Watched(proxy)
    logger = MLFlowLogger("counted", tracking_uri=proxy.uri)
    fit([callback], logger=logger, default_root_dir=tmp_path, max_epochs=4, log_every_n_steps=1000)
    usual = callback.requests[1:]
    print(f"requests: first {callback.requests[0]}, then {usual}; blocked {callback.blocked}")
    assert max(usual) <= MOST_REQUESTS
    assert callback.requests[0] - 16 - 6 <= MOST_REQUESTS  # eight probes are 16 files; the view asks four times
    client = MlflowClient(proxy.uri)
    names = [file.path.rpartition("/")[2] for file in client.list_artifacts(logger.run_id, "images")]
    steps = {key: set() for key in ("ifa~probes", "ifa~xai~0")}
    for name in names:
        key, _, rest = name.partition("+step+")
        if key in steps:
            steps[key].add(int(rest.partition("+")[0]))
    assert steps == {"ifa~probes": {0, 1, 2, 3}, "ifa~xai~0": {0, 3}}


def test_the_view_is_saved_once_and_a_users_change_of_it_stays(proxy, tmp_path):
    client = MlflowClient(proxy.uri)

    def train(name, **options):
        callback = IntegratedFeatureAnalysis(on_error="raise", probes=2, **options)
        fit([callback], logger=MLFlowLogger(name, tracking_uri=proxy.uri), default_root_dir=tmp_path, max_epochs=1)
        return client.get_experiment_by_name(name)

    assert TAG not in train("without", install_view=False).tags
    first = train("viewed")
    assert TAG in first.tags
    client.set_experiment_tag(first.experiment_id, TAG, "changed by the user")
    proxy.reset()
    assert train("viewed").tags[TAG] == "changed by the user"
    assert not [path for method, path in proxy.seen if path.endswith("set-experiment-tag")]
