"""What fails while a training ends, or is told to end, does not reach it."""

import warnings
from types import SimpleNamespace

import pytest

from lightning_ifa.errors import IFAWarning, InterruptedAnalysisError
from lightning_ifa.training import trainer as access
from lightning_ifa.training.callback import IntegratedFeatureAnalysis
from lightning_ifa.training.notices import Notices


def fail(*args, **options):
    raise OSError("the disk is gone")


@pytest.mark.parametrize("on_error", ["warn", "raise"])
@pytest.mark.parametrize("hook", ["on_exception", "teardown"])
@pytest.mark.parametrize("part", ["close", "send"])
def test_no_end_lets_an_error_out(monkeypatch, on_error, hook, part):
    callback = IntegratedFeatureAnalysis(on_error=on_error)
    monkeypatch.setattr(callback.session, part, fail)
    trainer = SimpleNamespace(fast_dev_run=False, checkpoint_callback=None, loggers=[])
    getattr(callback, hook)(trainer, None, KeyboardInterrupt() if hook == "on_exception" else "fit")


def test_a_warning_that_is_an_error_takes_no_place_at_the_end():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Notices(raises=True).guard_end():
            warnings.warn("left over", IFAWarning, stacklevel=1)


def test_a_state_that_cannot_be_had_is_empty(monkeypatch):
    callback = IntegratedFeatureAnalysis()
    monkeypatch.setattr(callback.session, "state", fail)
    with pytest.warns(IFAWarning, match="the disk is gone"):
        assert callback.state_dict() == {}


def test_a_signal_ends_the_analysis_without_a_word():
    trainer = SimpleNamespace(received_sigterm=False)
    ask = access.stop_at_signal(trainer)
    ask()
    trainer.received_sigterm = True
    with pytest.raises(InterruptedAnalysisError):
        ask()
    with Notices(raises=True).guard():
        ask()


def test_who_waits_for_the_end_waits_a_third_of_a_second(monkeypatch):
    class SIGTERMException(SystemExit):
        pass

    waited = []
    callback = IntegratedFeatureAnalysis()
    monkeypatch.setattr(callback.session, "send", lambda *_, **__: None)
    monkeypatch.setattr(callback.session, "close", lambda _, seconds: waited.append(seconds))
    for error in (KeyboardInterrupt(), SIGTERMException(), ValueError()):
        callback.on_exception(None, None, error)
    assert waited == [0.3, 0.3, 10.0]
