"""`Ensemble`: its networks, its predictions and its file."""

import copy
import pickle

import numpy as np
import pytest

import xpnet
from tests.test_many import LABELS, ROWS, SEEDS, VALUES, X, make
from xpnet import Ensemble, tensorfile, to_numpy, train_many
from xpnet.errors import CheckpointError
from xpnet.layers import Dense


def test_a_model_with_several_seeds_is_an_ensemble(xp, tmp_path):
    model = make(xp, seed=(0, 1, 2))
    model.fit(X, LABELS, epochs=2, verbose=0)
    ensemble = Ensemble(model)

    assert len(ensemble) == 3
    np.testing.assert_array_equal(to_numpy(ensemble[1].predict(X)), to_numpy(ensemble.model.predict(X)[1, ...]))
    ensemble.save(tmp_path / "ensemble.xpnet")
    loaded = Ensemble(xpnet.load_model(tmp_path / "ensemble.xpnet", xp))
    np.testing.assert_array_equal(to_numpy(loaded.predict(X)), to_numpy(ensemble.predict(X)))
    np.testing.assert_array_equal(to_numpy(loaded.spread(X)), to_numpy(ensemble.spread(X)))


def test_the_networks_are_saved_and_train_on(xp, tmp_path):
    ensemble = train_many(make(xp), X, LABELS, rows=ROWS, seeds=SEEDS, verbose=0)
    ensemble.save(tmp_path / "ensemble.xpnet")
    loaded = Ensemble(xpnet.load_model(tmp_path / "ensemble.xpnet", xp))
    before = loaded[-1].get_weights()
    loaded.model.fit(X, LABELS, verbose=0)

    for one, other in zip(before, ensemble[2].get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert np.any(loaded[-1].get_weights()[0] != before[0])
    assert ensemble[2].seed == 8


@pytest.mark.filterwarnings("ignore:1 of 2 networks diverged")
def test_a_loaded_ensemble_leaves_out_the_networks_that_diverged(xp, tmp_path):
    model = make(xp, layers=[Dense(1)], loss="mse", optimizer=xpnet.SGD())
    ensemble = train_many(model, X, VALUES, learning_rates=[0.01, 1e20], epochs=3, verbose=0)
    ensemble.save(tmp_path / "ensemble.xpnet")
    loaded = Ensemble(xpnet.load_model(tmp_path / "ensemble.xpnet", xp))

    assert [(k, error.args) for k, error in loaded.diverged.items()] == [(1, ensemble.diverged[1].args)]
    for same in (loaded, pickle.loads(pickle.dumps(ensemble)), copy.deepcopy(loaded)):
        np.testing.assert_array_equal(to_numpy(same.predict(X)), to_numpy(ensemble.predict(X)))
    loaded.diverged = {}
    assert np.any(to_numpy(loaded.predict(X)) != to_numpy(ensemble.predict(X)))


@pytest.mark.parametrize(
    "wrong", [3, [3], [[2, "", 0, "", []]], [[0, "", 0, "", [2]]], [[0, "", 0, ""]], [[0, 0, 0, "", []]]]
)
def test_a_file_with_wrong_networks_is_refused(wrong, tmp_path):
    model = make("numpy", layers=[Dense(1)], loss="mse", seed=(0, 1)).build((X.shape[1],))
    model.save(tmp_path / "ensemble.xpnet")
    file = tensorfile.read(tmp_path / "ensemble.xpnet")
    arrays = dict(zip(file.table, tensorfile.arrays(file, file.table), strict=True))
    tensorfile.write(tmp_path / "ensemble.xpnet", arrays, file.description | {"diverged": wrong})
    with pytest.raises(CheckpointError, match="Expected the networks that diverged, each with its error"):
        xpnet.load_model(tmp_path / "ensemble.xpnet", "numpy")


def test_places_are_integers(xp):
    ensemble = train_many(make(xp), X, LABELS, seeds=[0, 1], verbose=0)

    assert ensemble[np.int64(1)].seed == 1
    with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
        ensemble[0:2]
    with pytest.raises(IndexError):
        ensemble[2]


def test_one_seed_is_no_ensemble(xp):
    with pytest.raises(ValueError, match=r"needs a model with several seeds. Received: a list"):
        Ensemble([make(xp)])
    with pytest.raises(ValueError, match=r"needs a model with several seeds. Received: seed=0"):
        Ensemble(make(xp))
    with pytest.raises(RuntimeError, match="no parameters yet"):
        Ensemble(make(xp, seed=(0, 1)))


def test_values_have_no_classes(xp):
    ensemble = train_many(make(xp, layers=[Dense(1)], loss="mse"), X, VALUES, seeds=[0, 1], verbose=0)

    with pytest.raises(ValueError, match="needs a loss of classes"):
        ensemble.predict_classes(X)
