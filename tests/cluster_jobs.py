"""The program of tests/test_sklearn_cluster.py: searches in this process, and then by two workers of Dask or Ray.

``python -m tests.cluster_jobs distributed FOLDER`` prints what they found as JSON. The workers write into the folder.
"""

import importlib
import json
import os
import sys
from contextlib import contextmanager

import joblib
import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import shuffle
from threadpoolctl import threadpool_info

from xpnet import Adam
from xpnet.layers import Dense
from xpnet.sklearn import BatchedGridSearchCV, MLPClassifier, MLPRegressor, NeuralNetClassifier

X, Y = shuffle(*load_iris(return_X_y=True), random_state=0)


def network(outputs, width=10):  # it is defined in the main program, so it travels with the estimator
    return [Dense(width, activation="relu"), Dense(outputs)]


def process(estimator, x, y):
    """The process that scores, as a score."""
    return os.getpid()


def threads(estimator, x, y):
    """The largest number of threads of a BLAS or OpenMP library in this process, as a score."""
    return max(library["num_threads"] for library in threadpool_info())


def searches():
    settings = {"max_iter": 20, "batch_size": 25, "learning_rate_init": 0.02, "random_state": 0}
    classifier, regressor = MLPClassifier(**settings), MLPRegressor(**settings)
    custom = NeuralNetClassifier(network, optimizer=Adam(0.02), epochs=20, batch_size=25, random_state=0)
    grid = {"n_units": [1, 16], "dropout": [0.0, 0.5]}
    several = {"cv": 3, "refit": "score"}

    def scoring(score):
        return {"score": score, "process": process, "threads": threads}

    accuracy = several | {"scoring": scoring("accuracy")}
    return {
        "MLPClassifier": GridSearchCV(classifier, grid, **accuracy),
        "MLPRegressor": GridSearchCV(regressor, grid, **several, scoring=scoring("r2")),
        "NeuralNetClassifier": GridSearchCV(
            custom, {"network__width": [1, 16], "optimizer__learning_rate": [1e-5, 0.02]}, **accuracy
        ),
        "a pipeline": GridSearchCV(
            make_pipeline(StandardScaler(), classifier), {"mlpclassifier__alpha": [1e-4, 10.0]}, **accuracy
        ),
        "random settings": RandomizedSearchCV(classifier, grid, n_iter=3, random_state=0, **accuracy),
        "fits at once": BatchedGridSearchCV(classifier, {"learning_rate_init": [1e-5, 0.02]}, **accuracy),
        "no fits at once": BatchedGridSearchCV(classifier, {"dropout": [0.1, 0.9]}, **accuracy),
    }


@contextmanager
def dask(folder):
    distributed = importlib.import_module("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=None, local_directory=folder
        ) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config("dask"),
    ):
        yield


@contextmanager
def ray(folder):
    ray = importlib.import_module("ray")
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=100_000_000,
        _node_ip_address="127.0.0.1",
        _temp_dir=folder,
    )
    importlib.import_module("ray.util.joblib").register_ray()
    try:
        with joblib.parallel_config("ray", n_jobs=-1):
            yield
    finally:
        ray.shutdown()


def found(search):
    search.fit(X, Y)
    results = search.cv_results_
    splits = [name.removesuffix("_test_score") for name in results if name.startswith("split") and "score" in name]
    return {
        "best_params": {name: float(value) for name, value in search.best_params_.items()},
        "scores": [list(results[f"{split}_test_score"]) for split in splits],
        "predictions": search.predict(X).tolist(),
        "processes": sorted({int(n) for split in splits for n in results[f"{split}_test_process"]}),
        "at once": getattr(search, "n_batched_", 0),
        "threads": max(int(np.max(results[f"{split}_test_threads"])) for split in splits),
    }


def main(kind, folder):
    local = {name: found(search) for name, search in searches().items()}
    with {"distributed": dask, "ray": ray}[kind](folder):
        cluster = {name: found(search) for name, search in searches().items()}
    print(json.dumps({"process": os.getpid(), "local": local, "cluster": cluster}))


if __name__ == "__main__":
    main(*sys.argv[1:])
