"""Train a network on handwritten digits, on any backend.

    python examples/mnist.py
    python examples/mnist.py --backend cupy --plot digits.png --json digits.json

MNIST is taken from --data-dir, from $XPNET_DATA, from the cache, or downloaded. Without all of these ``--dataset auto`` trains
on the 8x8 digits that come with scikit-learn, and says so.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import classification_report

import xpnet
from xpnet import Adam, Model, Sequential, schedules
from xpnet.layers import Dense, Dropout, Flatten, ReLU, Rescaling

EPOCHS = {"mnist": 15, "fashion_mnist": 15, "digits": 100}


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="numpy, cupy, torch, jax or auto (default: %(default)s)")
    parser.add_argument("--device", help="the library's name for a device, such as cuda:1")
    parser.add_argument("--dataset", default="auto", choices=["auto", *EPOCHS], help="default: %(default)s")
    parser.add_argument("--data-dir", help="a folder with the four IDX files, plain or .gz")
    parser.add_argument("--epochs", type=int, help="default: 15, for the small digits 100")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write settings, accuracy and history")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="save curves, confusion matrix and mistakes")
    return parser.parse_args()


def load(name, data_dir):
    """The data set and its name."""
    if name == "digits":
        return name, xpnet.datasets.digits()
    if name != "auto":
        return name, getattr(xpnet.datasets, name)(data_dir)
    try:
        return "mnist", xpnet.datasets.mnist(data_dir)
    except (xpnet.DatasetError, ImportError) as error:
        print(f"MNIST is not to be had: {error}")
        print(
            "Training on scikit-learn's 8x8 digits instead. These are NOT MNIST, and their accuracy is another figure."
        )
        return "digits", xpnet.datasets.digits()


def save_plot(path, history, images, labels, predicted):
    from matplotlib.figure import Figure

    from xpnet import plotting

    figure = Figure(figsize=(12, 9), dpi=150, layout="constrained")
    top, bottom = figure.subfigures(2, 1)
    curves, matrix = top.subplots(1, 2)
    plotting.learning_curves(history, "loss", ax=curves)
    plotting.confusion_matrix(labels, predicted, ax=matrix)
    wrong = np.flatnonzero(predicted != labels)[:20]
    titles = [f"{predicted[i]}, not {labels[i]}" for i in wrong]
    if len(wrong):
        bottom.suptitle(f"{len(wrong)} of {np.sum(predicted != labels)} mistakes: predicted, not the label")
        plotting.image_grid(images[wrong], titles, columns=10, figure=bottom)
    figure.savefig(path)
    print(f"Saved {path}")


def main():
    args = parse_arguments()
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
    optimizer = Adam(schedules.Cosine(0.002, steps))
    model = Model(network, "softmax_cross_entropy", optimizer, metrics=["accuracy"], seed=args.seed)
    model.summary(x_train.shape[1:])

    start = time.perf_counter()
    history = model.fit(x_train, y_train, args.batch_size, epochs, validation_data=(x_test, y_test))
    seconds = time.perf_counter() - start

    predicted = xpnet.to_numpy(model.predict_classes(x_test))
    accuracy = float(np.mean(predicted == y_test))
    print(classification_report(y_test, predicted, digits=4))
    print(f"Test accuracy {accuracy:.2%} after {epochs} epochs in {seconds:.1f} s on {backend.name} ({backend.device})")

    if args.json:
        report = {
            "dataset": dataset, "backend": backend.name, "device": str(backend.device), "seed": args.seed,
            "epochs": epochs, "seconds": seconds, "test_accuracy": accuracy, "history": history.history,
        }  # fmt: skip
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2))
    if args.plot:
        save_plot(args.plot, history, x_test, y_test, predicted)


if __name__ == "__main__":
    main()
