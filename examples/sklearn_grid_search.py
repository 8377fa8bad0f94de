"""Tune a network on MNIST with scikit-learn's Pipeline and GridSearchCV, for scikit-learn's MLPClassifier and for xpnet's.

python examples/sklearn_grid_search.py
python examples/sklearn_grid_search.py --backend jax --json search.json

Both get the same candidates, folds, epochs and random numbers. On NumPy in float64 they follow the same path, so their
accuracies are equal. It takes a few minutes.
"""

import argparse
import json
import time
import warnings

from arguments import output_file
from sklearn import neural_network
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, ParameterGrid
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import MinMaxScaler

import xpnet
import xpnet.sklearn

GRID = {
    "network__hidden_layer_sizes": [(128,), (256, 128)],
    "network__learning_rate_init": [0.001, 0.003],
}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpy", help="where xpnet computes (default: %(default)s)")
    parser.add_argument("--data-dir", help="a folder with the four IDX files, plain or .gz")
    parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--folds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=1, help="fits at the same time, n_jobs (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the table to FILE")
    parser.add_argument("--quick", action="store_true", help="one epoch on 2,000 images, only for testing")
    return parser.parse_args()


def search(classifier, x_train, y_train, x_test, y_test, args):
    """Search the grid. Return a row of the table."""
    pipeline = Pipeline([("scaler", MinMaxScaler()), ("network", classifier)])
    grid = GridSearchCV(pipeline, GRID, cv=args.folds, n_jobs=args.jobs)
    start = time.perf_counter()
    grid.fit(x_train, y_train)
    seconds = time.perf_counter() - start
    best = {name.removeprefix("network__"): value for name, value in grid.best_params_.items()}
    return best | {"folds": grid.best_score_, "test": grid.score(x_test, y_test), "seconds": seconds}


def main():
    args = parse_arguments()
    (x_train, y_train), (x_test, y_test) = xpnet.datasets.mnist(args.data_dir)
    if args.quick:
        x_train, y_train, x_test, y_test, args.epochs = x_train[:2000], y_train[:2000], x_test[:500], y_test[:500], 1
    x_train, x_test = x_train.reshape(len(x_train), -1), x_test.reshape(len(x_test), -1)
    settings = {"max_iter": args.epochs, "random_state": args.seed}
    classifiers = {
        "scikit-learn": neural_network.MLPClassifier(**settings),
        "xpnet": xpnet.sklearn.MLPClassifier(**settings, backend=args.backend),
    }
    print(f"{len(ParameterGrid(GRID))} candidates, {args.folds} folds of {len(x_train):,} images, {args.epochs} epochs")
    print(f"\n{'':24}{'best candidate':34}accuracy")
    print(f"{'type':10}{'library':14}{'hidden layers':16}{'learning rate':15}{'folds':>7}{'test':>9}{'seconds':>9}")
    rows = []
    for dtype in ("float64", "float32"):
        for name, classifier in classifiers.items():
            row = search(classifier, x_train.astype(dtype), y_train, x_test.astype(dtype), y_test, args)
            rows.append({"type": dtype, "library": name} | row)
            print(
                f"{dtype:10}{name:14}{row['hidden_layer_sizes']!s:16}{row['learning_rate_init']:<15}"
                f"{row['folds']:7.2%}{row['test']:9.2%}{row['seconds']:9.1f}",
                flush=True,
            )
    print()
    for theirs, ours in zip(rows[::2], rows[1::2], strict=True):
        ratio = theirs["seconds"] / ours["seconds"]
        print(f"{theirs['type']}: xpnet on {args.backend} is {ratio:.2f} times as fast as scikit-learn.")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    warnings.simplefilter("ignore", ConvergenceWarning)  # the number of epochs is chosen
    main()
