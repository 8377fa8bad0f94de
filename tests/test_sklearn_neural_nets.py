"""Any network as an estimator."""

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9", reason="xpnet.sklearn needs scikit-learn 1.9 or newer")

from sklearn.base import clone
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.utils import compute_sample_weight

import xpnet
from xpnet import Adam, EarlyStopping, Model, RMSprop, Sequential, to_numpy
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, Reshape
from xpnet.losses import BinaryCrossEntropy, GaussianNLL, SoftmaxCrossEntropy
from xpnet.sklearn import MLPClassifier, MLPRegressor, NeuralNetClassifier, NeuralNetRegressor, from_model


def digits(n=200, classes=4):
    X, y = load_digits(n_class=classes, return_X_y=True)
    return X[:n] / 16, y[:n]


def network(outputs, width=30, rate=0.0):
    return [Dense(width, activation="relu"), *([Dropout(rate)] if rate else []), Dense(outputs)]


def test_it_trains_the_model_that_fit_would(xp):
    X, y = digits()
    ours = NeuralNetClassifier(network, optimizer=Adam(0.01), epochs=3, random_state=5, backend=xp, batch_size=64).fit(
        X, y
    )
    seed = np.random.RandomState(5).randint(2**31 - 1)
    backend = ours.model_.backend
    model = Model(Sequential(network(4)), "softmax_cross_entropy", Adam(0.01), seed=int(seed), backend=backend)
    with backend.scope():
        model.fit(X, y, 64, 3, 0)

    for a, b in zip(ours.model_.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert ours.history_.history == model.history.history
    assert backend.float_name == "float64"
    assert ours.predict_proba(X).dtype == np.float64
    assert ours.score(X, y) > 0.9


def test_nested_parameters():
    estimator = NeuralNetClassifier(
        [Dense(5, activation="relu"), Dense(4)], optimizer="adam", loss="softmax_cross_entropy"
    )
    params = estimator.get_params()

    assert params["network__0__units"] == 5
    assert params["optimizer__learning_rate"] == 0.001
    assert params["loss__label_smoothing"] == 0.0
    estimator.set_params(network__0__units=7, optimizer__learning_rate=0.1, loss__label_smoothing=0.2, epochs=2)
    assert estimator.network[0] == Dense(7, activation="relu")
    assert (estimator.optimizer.learning_rate, estimator.loss.label_smoothing, estimator.epochs) == (0.1, 0.2, 2)
    copy = clone(NeuralNetClassifier(Sequential(estimator.network)).set_params(network__2__units=3))
    assert copy.network.layers[-1] == Dense(3)
    with pytest.raises(ValueError, match=r"Dense has no such setting.*Received: 'unit'"):
        estimator.set_params(network__0__unit=3)
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        estimator.set_params(epoch=3)


def test_arguments_of_a_function_are_nested_parameters():
    estimator = NeuralNetClassifier(network, epochs=1)

    assert {n: v for n, v in estimator.get_params().items() if n.startswith("network__")} == {
        "network__width": 30, "network__rate": 0.0,
    }  # fmt: skip
    estimator.set_params(network__width=9).set_params(network__rate=0.5)
    fitted = pickle.loads(pickle.dumps(clone(estimator).fit(*digits())))
    assert fitted.model_.network.layers[0] == Dense(9)
    assert fitted.get_params()["network__rate"] == 0.5
    with pytest.raises(ValueError, match="network has no such setting"):
        estimator.set_params(network__depth=3)


def test_search():
    X, y = digits()
    grid = GridSearchCV(
        NeuralNetClassifier(network, epochs=15, random_state=0),
        {"network__width": [1, 40], "optimizer__learning_rate": [0.02]},
        cv=3,
    ).fit(X, y)

    assert grid.best_params_ == {"network__width": 40, "optimizer__learning_rate": 0.02}


def test_images():
    X, y = digits()
    layers = [Conv2D(8, 3, activation="relu"), Flatten(), Dense(4)]
    estimator = NeuralNetClassifier(layers, optimizer=Adam(0.02), epochs=40, random_state=0)

    assert np.mean(cross_val_score(estimator, X.reshape(-1, 8, 8, 1), y, cv=3)) > 0.8
    flat = NeuralNetClassifier([Reshape((8, 8, 1)), Flatten(), Dense(4)], epochs=1).fit(X, y)
    assert flat.n_features_in_ == 64


def test_bytes_stay_bytes():
    X, y = digits()
    images = (X * 16).astype(np.uint8)
    ours = NeuralNetClassifier(network, epochs=2, random_state=0, batch_size=50)

    assert ours.fit(images, y).model_.backend.float_name == "float32"
    floats = clone(ours).fit(images.astype(np.float32), y)
    np.testing.assert_array_equal(ours.predict_proba(images), floats.predict_proba(images.astype(np.float32)))


def test_two_classes_with_one_output():
    X, y = digits(classes=2)
    y = np.array(["no", "yes"])[y]
    ours = NeuralNetClassifier(
        network, loss="binary_cross_entropy", optimizer=Adam(0.01), epochs=20, random_state=0
    ).fit(X, y)

    assert ours.score(X, y) == 1.0
    assert ours.predict_proba(X).shape == (len(y), 2)
    np.testing.assert_allclose(ours.predict_proba(X).sum(axis=1), 1.0)
    assert (ours.classes_[ours.predict_proba(X).argmax(axis=1)] == ours.predict(X)).all()


def test_several_labels():
    X, Y = make_multilabel_classification(100, n_classes=3, random_state=0)
    ours = NeuralNetClassifier(network, optimizer=Adam(0.02), epochs=100, random_state=0).fit(X, Y)

    assert ours.predict(X).shape == ours.predict_proba(X).shape == Y.shape
    assert ours.score(X, Y) > 0.9


def test_regression_of_several_targets():
    X, Y = make_regression(150, 5, n_targets=2, random_state=0)
    ours = NeuralNetRegressor(network, optimizer=Adam(0.05), epochs=200, random_state=0).fit(X, Y / Y.std())

    assert ours.score(X, Y / Y.std()) > 0.98
    gaussian = NeuralNetRegressor(network, loss="gaussian_nll", epochs=2, random_state=0).fit(X, Y)
    assert gaussian.model_.network.layers[-1] == Dense(4)
    assert gaussian.predict(X).shape == Y.shape


def test_validation_samples_and_early_stopping():
    X, y = digits()
    stop = EarlyStopping(monitor="val_loss", patience=2)
    ours = NeuralNetClassifier(
        network,
        optimizer=Adam(0.05),
        epochs=200,
        validation_fraction=0.2,
        callbacks=stop,
        metrics=["accuracy"],
        random_state=0,
    ).fit(X, y)

    assert ours.n_iter_ == len(ours.history_.history["val_accuracy"]) < 200
    other = NeuralNetClassifier(network, epochs=2, random_state=0).fit(X[:150], y[:150], X_val=X[150:], y_val=y[150:])
    assert len(other.history_.history["val_loss"]) == 2


def test_partial_fit_and_warm_start_continue():
    X, y = digits()
    settings = {"epochs": 3, "random_state": 0, "batch_size": 50}
    whole = NeuralNetClassifier(network, **settings).fit(X, y)
    steps = NeuralNetClassifier(network, **settings)
    for _ in range(3):
        steps.partial_fit(X, y, classes=range(4))
    warm = NeuralNetClassifier(network, warm_start=True, **settings | {"epochs": 1}).fit(X, y).fit(X, y)

    np.testing.assert_array_equal(steps.predict_proba(X), whole.predict_proba(X))
    assert warm.model_.epoch == 2
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        NeuralNetClassifier(network).partial_fit(X, y)


def test_parameters_can_be_set_between_fits_that_continue():
    X, y = digits()
    ours = NeuralNetClassifier(network, optimizer=Adam(0.01), batch_size=50, random_state=0)
    ours.partial_fit(X, y, classes=range(4))
    memory = to_numpy(ours.model_.state["optimizer"]["m"][0]["weight"])
    weights = ours.model_.get_weights()
    ours.set_params(optimizer__learning_rate=0.0).partial_fit(X, y)

    for before, after in zip(weights, ours.model_.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    assert np.any(to_numpy(ours.model_.state["optimizer"]["m"][0]["weight"]) != memory)
    assert to_numpy(ours.model_.state["optimizer"]["t"]).max() == ours.model_.step == 8
    ours.set_params(optimizer="rmsprop").partial_fit(X, y)
    assert ours.model_.optimizer == RMSprop()
    assert set(ours.model_.state["optimizer"]) == set(RMSprop().init({}))
    ours.set_params(loss=SoftmaxCrossEntropy(label_smoothing=0.2), metrics=["accuracy"]).partial_fit(X, y)
    assert ours.model_.loss.label_smoothing == 0.2
    assert list(ours.history_.history) == ["loss", "accuracy"]
    warm = from_model(ours.model_).set_params(warm_start=True, epochs=1, optimizer__learning_rate=0.5).fit(X, y)
    assert warm.model_.optimizer == RMSprop(0.5)


@pytest.mark.parametrize(
    ("estimator", "wrong"),
    [
        (NeuralNetClassifier(network), {"loss": BinaryCrossEntropy()}),
        (NeuralNetClassifier(network), {"loss": "mse", "optimizer": "rmsprop"}),
        (NeuralNetClassifier(network), {"loss": SoftmaxCrossEntropy(label_smoothing=0.2), "metrics": ["r3"]}),
        (NeuralNetClassifier(network), {"optimizer": "rmsprop", "callbacks": [3]}),
        (NeuralNetRegressor([Dense(3)]), {"loss": GaussianNLL()}),
    ],
)
def test_a_partial_fit_that_is_refused_changes_nothing(estimator, wrong):
    X, y = digits()
    targets = X[:, :3] if isinstance(estimator, NeuralNetRegressor) else y
    ours = clone(estimator).set_params(epochs=1, random_state=0).fit(X, targets)
    before, model = ours.get_params(), ours.model_
    parts = model.loss, model.optimizer, model.metrics
    with pytest.raises((ValueError, TypeError)):
        ours.set_params(**wrong).partial_fit(X, targets)

    assert ours.model_ is model
    assert (model.loss, model.optimizer, model.metrics) == parts
    assert ours.set_params(**{name: before[name] for name in wrong}).partial_fit(X, targets).model_ is model
    assert model.epoch == 2


def test_another_network_is_another_fit():
    X, y = digits()
    ours = NeuralNetClassifier(network, epochs=1, random_state=0).fit(X, y)
    again = pickle.loads(pickle.dumps(ours)).set_params(network__width=30).partial_fit(X, y)

    assert again.model_.epoch == 2
    for change in (
        {"network__width": 9},
        {"dtype": "float32"},
        {"backend": "array_api_strict"},
        {"network": [Dense(4)]},
    ):
        with pytest.raises(
            ValueError, match=r"continue to train the same model.*Received: another (network|dtype|backend)"
        ):
            clone(ours).fit(X, y).set_params(**change).partial_fit(X, y)
    layers = NeuralNetClassifier([Dense(5), Dense(4)], epochs=1, warm_start=True).fit(X, y)
    with pytest.raises(ValueError, match="Received: another network than in the last fit"):
        layers.set_params(network__0__units=9).fit(X, y)
    assert layers.set_params(warm_start=False).fit(X, y).model_.network.layers[0] == Dense(9)


@pytest.mark.parametrize("wrong", [np.nan, -1.0, np.inf, "2"])
def test_weights_of_classes_are_numbers(wrong):
    X, y = digits()
    for estimator in (NeuralNetClassifier([Dense(4)]), MLPClassifier()):
        with pytest.raises(
            ValueError, match=r"class_weight\[1\] must be a number in \[0, inf\)\. Received: class_weight\[1\]="
        ):
            estimator.set_params(class_weight={0: 1.0, 1: wrong}).fit(X, y)
        assert not hasattr(estimator, "n_iter_") or estimator.n_iter_ == 0


@pytest.mark.parametrize("estimator", [NeuralNetClassifier([Dense(4)]), MLPClassifier(), MLPClassifier(solver="lbfgs")])
def test_at_least_one_sample_has_a_weight(estimator):
    """scikit-learn raises for sample weights that are all 0."""
    X, y = digits()
    rule = r"At least one sample must have a weight above 0\. Change class_weight or sample_weight\. Received: weights that are"
    with pytest.raises(ValueError, match=rule + r" all 0, with class_weight=\{0: 0\.0, 1: 0"):
        clone(estimator).set_params(class_weight={0: 0.0, 1: 0, 2: 0, 3: 0}).fit(X, y)
    with pytest.raises(ValueError, match=rule):
        clone(estimator).set_params(class_weight={0: 0}).fit(X, y, sample_weight=y == 0)


def test_class_weights_are_sample_weights():
    X, y = digits()
    settings = {"epochs": 2, "random_state": 0}
    weighted = NeuralNetClassifier(network, class_weight="balanced", **settings).fit(X, y)
    given = NeuralNetClassifier(network, **settings).fit(X, y, sample_weight=compute_sample_weight("balanced", y))

    np.testing.assert_array_equal(weighted.predict_proba(X), given.predict_proba(X))


@pytest.mark.parametrize("estimator", [NeuralNetClassifier, NeuralNetRegressor])
def test_the_default_loss_has_no_settings(estimator):
    with pytest.raises(ValueError, match=r'loss__delta needs a loss .*such as loss="\w+"\. Received: loss=None'):
        estimator([Dense(3)]).set_params(loss__delta=0.1)


def test_the_same_backend_by_another_name_is_no_change():
    X, y = digits()
    with xpnet.use_backend("numpy"):
        model = NeuralNetClassifier(network, random_state=0).partial_fit(X, y, classes=range(4))
        for backend in ("numpy", xpnet.get_backend(), None):
            model.set_params(backend=backend).partial_fit(X, y)
        with pytest.raises(ValueError, match="another backend than in the last fit"):
            model.set_params(backend="array_api_strict").partial_fit(X, y)


def test_mistakes():
    X, y = digits()
    with pytest.raises(ValueError, match=r"At least two classes are needed\. Received: targets of only one class, 0"):
        NeuralNetClassifier(network).fit(X[:3], [0, 0, 0])
    with pytest.raises(ValueError, match="The 'network' parameter of NeuralNetClassifier must be"):
        NeuralNetClassifier(3).fit(X, y)
    with pytest.raises(ValueError, match="A loss must be an object such as"):
        NeuralNetClassifier(network, loss="hinge").fit(X, y)
    for estimator in (NeuralNetRegressor(network, loss="softmax_cross_entropy"), MLPRegressor(SoftmaxCrossEntropy())):
        with pytest.raises(ValueError, match=r"A regressor needs a loss of values.*Received: SoftmaxCrossEntropy"):
            estimator.fit(X, y)
    with pytest.raises(ValueError, match=r"A classifier needs a loss of classes.*Received: MeanSquaredError"):
        NeuralNetClassifier(network, loss="mse").fit(X, y)
    failed = NeuralNetClassifier([Dense(6)])
    with pytest.raises(ValueError, match=r"needs outputs of shape \(4,\) for these targets. Received: \(6,\)"):
        failed.fit(X, y)
    assert not hasattr(failed, "model_")
    NeuralNetClassifier([Dense(4)], epochs=1, verbose="auto").fit(X, y)
    assert xpnet.get_backend().name == "numpy"
