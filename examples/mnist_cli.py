"""Train a network on handwritten digits, on any backend.

    python examples/mnist_cli.py
    python examples/mnist_cli.py --backend cupy --plot digits.png --json digits.json

MNIST comes from --data-dir, $XPNET_DATA, the cache, or a download. If none of these works, ``--dataset auto`` trains on the 8x8
digits that come with scikit-learn, and prints a notice.
"""

import argparse
import json
import time

import numpy as np
from arguments import output_file, picture_file

import xpnet
from xpnet import Adam, Model, Sequential, plotting, schedules
from xpnet.errors import optional_import
from xpnet.layers import Dense, Dropout, Flatten, ReLU, Rescaling

EPOCHS = {"mnist": 15, "fashion_mnist": 15, "digits": 100}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="numpy, cupy, torch, jax or auto (default: %(default)s)")
    parser.add_argument("--device", help="the library's name for a device, such as cuda:1")
    parser.add_argument("--dataset", default="auto", choices=["auto", *EPOCHS], help="default: %(default)s")
    parser.add_argument("--data-dir", help="a folder with the four IDX files, plain or .gz")
    parser.add_argument("--epochs", type=int, help="default: 15, or 100 for the small digits")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write settings, accuracy and history to FILE")
    parser.add_argument(
        "--plot", type=picture_file, metavar="FILE", help="plot curves, confusion matrix and mistakes in FILE"
    )
    return parser.parse_args()


def load(name, data_dir):
    """Return the name of the data set and the data."""
    if name == "digits":
        return name, xpnet.datasets.digits()
    if name != "auto":
        return name, getattr(xpnet.datasets, name)(data_dir)
    try:
        return "mnist", xpnet.datasets.mnist(data_dir)
    except xpnet.DatasetError as error:
        print(f"MNIST is not available: {error}")
        print("Training on scikit-learn's 8x8 digits instead. These are NOT MNIST; do not compare the accuracies.")
        return "digits", xpnet.datasets.digits()


def save_plot(path, title, history, images, labels, predicted):
    figure = optional_import("matplotlib.figure", "plot").Figure(figsize=(14, 8.5), dpi=150, layout="constrained")
    figure.suptitle(title, weight="bold")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.2, 1))
    loss, accuracy, matrix = top.subplots(1, 3)
    for ax, metric in ((loss, "loss"), (accuracy, "accuracy")):
        plotting.learning_curves(history, metric, ax, labels=("training", "test")).set_title(metric.capitalize())
    plotting.confusion_matrix(labels, predicted, matrix).set_title("Confusion matrix of the test images")
    wrong = np.flatnonzero(predicted != labels)[:20]
    titles = [f"{predicted[i]}, not {labels[i]}" for i in wrong]
    if len(wrong):
        bottom.suptitle(f"{len(wrong)} of {np.sum(predicted != labels)} mistakes, with prediction and label")
        plotting.image_grid(images[wrong], titles, columns=10, figure=bottom)
    figure.savefig(path)
    print(f"Saved {path}")


def main():
    args = parse_arguments()
    metrics = optional_import("sklearn.metrics", "sklearn")
    backend = xpnet.set_backend(args.backend, device=args.device)
    dataset, ((x_train, y_train), (x_test, y_test)) = load(args.dataset, args.data_dir)
    epochs = args.epochs or EPOCHS[dataset]
    print(f"{backend}, {dataset}: {len(x_train):,} training and {len(x_test):,} test images")

    steps = epochs * -(-len(x_train) // args.batch_size)
    network = Sequential([
        Rescaling(1 / 255 if x_train.max() > 16 else 1 / 16), Flatten(),
        Dense(256, weight_initializer="he_uniform"), ReLU(), Dropout(0.2),
        Dense(128, weight_initializer="he_uniform"), ReLU(), Dropout(0.2),
        Dense(10),
    ])  # fmt: skip
    optimizer = Adam(schedules.CosineDecay(0.002, steps))
    model = Model(network, "softmax_cross_entropy", optimizer, metrics=["accuracy"], seed=args.seed)
    model.summary(x_train.shape[1:])

    start = time.perf_counter()
    history = model.fit(x_train, y_train, args.batch_size, epochs, validation_data=(x_test, y_test))
    seconds = time.perf_counter() - start

    predicted = xpnet.to_numpy(model.predict_classes(x_test))
    accuracy = float(np.mean(predicted == y_test))
    print(metrics.classification_report(y_test, predicted, digits=4))
    print(f"Test accuracy {accuracy:.2%} after {epochs} epochs in {seconds:.1f} s on {backend.name} ({backend.device})")

    if args.json:
        report = {
            "dataset": dataset, "backend": backend.name, "device": str(backend.device), "seed": args.seed,
            "epochs": epochs, "seconds": seconds, "test_accuracy": accuracy, "history": history.history,
        }  # fmt: skip
        args.json.write_text(json.dumps(report, indent=2))
    if args.plot:
        title = f"{dataset}: {accuracy:.2%} of {len(x_test):,} test images after {epochs} epochs"
        save_plot(args.plot, title, history, x_test, y_test, predicted)


if __name__ == "__main__":
    main()
