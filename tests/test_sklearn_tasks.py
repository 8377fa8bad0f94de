"""scikit-learn's callbacks: they follow the epochs of a fit, alone and in meta-estimators."""

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn.base import clone, is_classifier
from sklearn.callback import ScoringMonitor
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from xpnet import Callback
from xpnet.layers import Dense
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
TEXT = np.array(["a", "b", "c"])[Y]


def network(outputs):
    return [Dense(6, activation="relu"), Dense(outputs)]


MADE = {
    "MLPClassifier": lambda epochs, **more: MLPClassifier(6, max_iter=epochs, random_state=0, **more),
    "batch_norm": lambda epochs, **more: MLPClassifier(6, max_iter=epochs, random_state=0, batch_norm=True, **more),
    "MLPRegressor": lambda epochs, **more: MLPRegressor(hidden_layer_sizes=6, max_iter=epochs, random_state=0, **more),
    "NeuralNetClassifier": lambda epochs, **more: NeuralNetClassifier(network, epochs=epochs, random_state=0, **more),
    "NeuralNetRegressor": lambda epochs, **more: NeuralNetRegressor(network, epochs=epochs, random_state=0, **more),
}


class Recorder:
    """A callback of scikit-learn that keeps what it is told, and may stop the fit after an epoch."""

    def __init__(self, stop_after=None):
        self.stop_after, self.told, self.fitted = stop_after, [], []

    def setup(self, estimator, context):
        self.told.append(("setup", context.task_name, context.max_subtasks))

    def teardown(self, estimator, context):
        self.told.append(("teardown", context.task_name))

    def on_fit_task_begin(self, estimator, context):
        self.told.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.told.append(("end", context.task_name, context.task_id))
        self.fitted.append((X, y, metadata, fitted_estimator))
        return context.task_name == "epoch" and context.task_id == self.stop_after


class Everywhere(Recorder):
    """The same, for meta-estimators to hand on."""

    max_propagation_depth = None


def answer(estimator):
    return getattr(estimator, "predict_proba", estimator.predict)(X)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_each_epoch_is_a_task_with_a_fitted_estimator(make, xp):
    recorder = Recorder()
    estimator = make(3, backend=xp)
    assert estimator.set_callbacks(recorder) is estimator
    weight = np.linspace(1.0, 2.0, len(Y))
    estimator.fit(X, Y, sample_weight=weight)

    epochs = [(what, "epoch", i) for i in range(3) for what in ("begin", "end")]
    assert recorder.told == [("setup", "fit", 3), ("begin", "fit", 0), *epochs, ("end", "fit", 0), ("teardown", "fit")]
    for epoch, (samples, targets, metadata, fitted) in enumerate(recorder.fitted[:-1], 1):
        assert samples is X
        assert targets is Y
        assert metadata == {"sample_weight": weight}
        expected = answer(make(epoch, backend=xp).fit(X, Y, sample_weight=weight))
        np.testing.assert_allclose(answer(fitted), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_a_callback_stops_the_fit(make):
    estimator = make(5).set_callbacks(Recorder(stop_after=1)).fit(X, Y)

    assert estimator.n_iter_ == 2
    np.testing.assert_array_equal(answer(estimator), answer(make(2).fit(X, Y)))


@pytest.mark.parametrize("make", MADE.values(), ids=MADE)
def test_the_score_of_each_epoch(make):
    estimator = make(4)
    name = "accuracy" if is_classifier(estimator) else "r2"
    monitor = ScoringMonitor(scoring=name)
    estimator.set_callbacks(monitor).fit(X, Y)
    scores = [row[name] for row in monitor.get_logs().data if row["task_name"] == "epoch"]

    assert len(scores) == 4
    assert scores[-1] == estimator.score(X, Y)


def test_text_labels_and_callbacks_of_both_libraries():
    class Epochs(Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(epoch)

    seen, monitor = [], ScoringMonitor(scoring="accuracy")
    model = MLPClassifier(6, max_iter=3, random_state=0, callbacks=Epochs()).set_callbacks(monitor).fit(X, TEXT)

    assert seen == [0, 1, 2]
    assert [row["accuracy"] for row in monitor.get_logs().data][-1] == model.score(X, TEXT)


def test_lbfgs_is_one_task():
    recorder = Recorder()
    MLPClassifier(6, solver="lbfgs", max_iter=5).set_callbacks(recorder).fit(X, Y)

    assert [what for what, *_ in recorder.told] == ["setup", "begin", "end", "teardown"]
    assert recorder.told[0] == ("setup", "fit", 0)


def test_partial_fit_is_no_task():
    recorder = Recorder()
    MLPClassifier(6).set_callbacks(recorder).partial_fit(X, Y, classes=[0, 1, 2])

    assert recorder.told == []


def test_meta_estimators_hand_callbacks_on():
    recorder = Everywhere()
    pipeline = make_pipeline(StandardScaler(), MADE["MLPClassifier"](2))
    search = GridSearchCV(pipeline, {"mlpclassifier__alpha": [0.1, 0.01]}, cv=2).set_callbacks(recorder)
    search.fit(X, Y)

    assert recorder.told.count(("end", "epoch", 1)) == 2 * 2 + 1
    assert [name for what, name, *_ in recorder.told if what in ("setup", "teardown")] == ["fit", "fit"]
    assert not hasattr(search.best_estimator_[-1], "_skl_callbacks")


def test_an_error_ends_the_callbacks_too():
    recorder = Recorder()
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        MADE["MLPClassifier"](2).set_callbacks(recorder).fit(X, Y[:5])

    assert [what for what, *_ in recorder.told] == ["setup", "begin", "teardown"]


def test_a_clone_has_the_same_callbacks():
    recorder = Recorder()
    clone(MADE["NeuralNetClassifier"](1).set_callbacks(recorder)).fit(X, Y)

    assert recorder.told


def test_a_progress_bar(capsys):
    pytest.importorskip("rich")
    from sklearn.callback import ProgressBar

    MADE["MLPClassifier"](3).set_callbacks(ProgressBar()).fit(X, Y)

    assert "MLPClassifier - fit" in capsys.readouterr().out
