"""Reproduce report A, "Jsneural" (J. L. Silva, Uppsala): softmax regression and a deep network on MNIST.

    python examples/report_a_jsneural.py --out figures --json report_a.json
    python examples/report_a_jsneural.py --png-folder mnist_png --as-written

The report uses *element-wise* accuracy, over all ten entries of a one-hot row. For an error rate e it is 1 - 2e/10, so 0.990
means 95.0 % of the images. The script prints both. It draws the report's weights N(0, 0.01) with standard deviation 0.01.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import PrintEvery, Report, argument_parser, mnist, rows, timed

from xpnet import SGD, Model, datasets, plotting
from xpnet.initializers import RandomNormal
from xpnet.layers import Dense, ReLU, Sigmoid
from xpnet.optimizers import Optimizer

SMALL = RandomNormal(stddev=0.01)  # the report's N(0, 0.01) means randn() * 0.01, so 0.01 is the standard deviation
METRICS = ("accuracy", "elementwise_accuracy")
BATCH_AND_TEST = ("mini-batch", "test set")
COSTS = [1.647, 1.224, 1.039, 0.905, 0.875, 0.786, 0.685, 0.679, 0.762, 0.636]  # the report's costs for A2


@dataclass(frozen=True)
class AsWritten(Optimizer):
    """W -= lr · 100/60,000 · dW,   b -= lr · db:   turns dW, a mean over the batch of 100, into the report's sum / 60,000"""

    def init(self, params):
        return {}

    def step(self, params, grads, state, learning_rate):
        (p,), (g,) = params, grads  # the only layer's
        W = p["weight"] - learning_rate * (100 / 60_000) * g["weight"]
        b = p["bias"] - learning_rate * g["bias"]
        return ({"weight": W, "bias": b},), state


def main():
    parser = argument_parser(__doc__)
    parser.add_argument("--as-written", action="store_true", help="also run A2 with the report's weight gradient")
    parser.add_argument("--png-folder", type=Path, metavar="DIR", help="read MNIST from DIR/Train/<digit>/*.png and "
                        "DIR/Test; write them first if DIR has none")  # fmt: skip
    parser.add_argument("--record-every", type=int, default=1, metavar="K", help="evaluate the test set every K "
                        "iterations; a divisor of 600 (default: 1, which takes most of the time)")  # fmt: skip
    args = parser.parse_args()
    report = Report("A", args)

    three_classes(report)
    (images, y_train), (test_images, y_test) = load(report)
    train, test = (rows(images), y_train), (rows(test_images), y_test)
    report.save(plotting.image_grid(images[:1], [f"label {y_train[0]}"]), "a_first_image")
    softmax_regression(report, train, test)
    deep_network(report, train, test)
    report.finish()


def three_classes(report):
    report.heading("A1", "is x1 = x2, x2 > x1 or x2 < x1? Softmax regression on eight points, 10,000 epochs")
    x_train = np.array([(1, 1), (3, 4), (5, 5), (9, 7), (6, 4), (4, 4), (10, 1), (1, 3)], float)
    x_test = np.array([(3, 3), (3, 10), (1, 5), (12, 12), (2, 2)], float)
    y_train, y_test = label(x_train), label(x_test)

    model = Model([Dense(3, weight_initializer=SMALL)], "softmax_cross_entropy", SGD(0.2), METRICS, report.args.seed)
    epochs = 2000 if report.args.quick else 10_000
    history, seconds = timed(
        model.fit, x_train, y_train, batch_size=4, epochs=epochs, verbose=0, validation_data=(x_test, y_test),
        validation_freq=epochs, record_every=50,
    )  # fmt: skip

    report.add("A1", "train accuracy", model.evaluate(x_train, y_train).accuracy, reported=1.0, seconds=seconds)
    report.add("A1", "test accuracy", model.evaluate(x_test, y_test).accuracy, reported=1.0)
    report.save_curves(history, "a1_curves", "iteration", labels=BATCH_AND_TEST)


def label(x):
    """0 if x1 = x2, 1 if x2 > x1, else 2."""
    return np.where(x[:, 0] == x[:, 1], 0, np.where(x[:, 1] > x[:, 0], 1, 2))


def load(report):
    """Load MNIST from its IDX files, or from a folder of PNG files, as the report does."""
    folder = report.args.png_folder
    if folder is None:
        return mnist(report.args)
    report.heading("A data", f"PNG files in {folder}")
    if not (folder / "Train").exists():
        _, seconds = timed(datasets.write_image_folder, folder, *mnist(report.args))
        report.add("A data", "seconds to write the PNG files", seconds, form=".1f")
    (train, test), seconds = timed(datasets.image_folder, folder)
    report.add("A data", "images read from PNG files", len(train[0]) + len(test[0]), seconds=seconds)
    return train, test


def softmax_regression(report, train, test):
    report.heading("A2", "softmax regression 784-10, lr 0.8, batch 100, 10 epochs")
    print(
        "The report divides the gradient of the weights, a sum over the batch of 100, by all 60,000 rows, and the gradient\n"
        "of the bias by 100. Its weights learn 600 times more slowly than its bias. --as-written runs this version too."
    )
    optimizers = {"correct": SGD(0.8)}
    if report.args.as_written:
        optimizers["as written"] = AsWritten(0.8)
    histories = {}
    for name, optimizer in optimizers.items():
        print(f"{name}:")
        model = Model(
            [Dense(10, weight_initializer=SMALL)], "softmax_cross_entropy", optimizer, METRICS, report.args.seed
        )
        history, seconds = timed(
            model.fit, *train, batch_size=100, epochs=10, verbose=2, validation_data=test,
            record_every=report.args.record_every,
        )  # fmt: skip
        histories[name] = history

        experiment, iterations = f"A2 {name}", history.iterations
        steps, recorded = len(train[0]) // 100, zip(iterations["step"], iterations["loss"], strict=True)
        costs = [cost for step, cost in recorded if (step + 1) % steps == 0]
        report.add(experiment, "mini-batch cost after each epoch", costs, COSTS, seconds, ".3f")
        at_train, at_test = model.evaluate(*train), model.evaluate(*test)
        reference, elementwise_reference = (0.914, 0.983) if name == "correct" else (None, None)
        report.add(experiment, "train accuracy, element-wise", at_train.elementwise_accuracy, 0.97131)
        report.add(experiment, "train accuracy", at_train.accuracy)
        report.add(experiment, "test accuracy, element-wise", at_test.elementwise_accuracy, 0.97268,
                   reference=elementwise_reference)  # fmt: skip
        report.add(experiment, "test accuracy", at_test.accuracy, reference=reference)
        file = f"a2_{name.replace(' ', '_')}"
        report.save_curves(history, f"{file}_curves", "iteration", ("loss", *METRICS), BATCH_AND_TEST)
        report.save(plotting.weight_images(model.parameters[0]["weight"], titles=range(10)), f"{file}_weights")
    if report.args.as_written:
        report.save_curves(histories, "a2_both", "iteration", labels=BATCH_AND_TEST)


def deep_network(report, train, test):
    report.heading("A3", "784 - 100 sigmoid - 30 ReLU - 10 softmax, lr 0.3, batch 100, 150 epochs")
    print("The report's listing runs 5 epochs. In these, the test set is evaluated at every iteration.")
    milestones = {2: None, 4: None} if report.args.quick else {5: 0.952, 10: 0.965, 30: 0.975, 150: 0.977}
    listing, *_, last = milestones

    network = [Dense(100, weight_initializer=SMALL), Sigmoid(), Dense(30, weight_initializer=SMALL), ReLU(),
               Dense(10, weight_initializer=SMALL)]  # fmt: skip
    model = Model(network, "softmax_cross_entropy", SGD(0.3), METRICS, report.args.seed)
    first, seconds = timed(
        model.fit, *train, batch_size=100, epochs=listing, verbose=2, validation_data=test,
        record_every=report.args.record_every,
    )  # fmt: skip
    rest, more_seconds = timed(
        model.fit, *train, batch_size=100, epochs=last, initial_epoch=listing, verbose=0, validation_data=test,
        callbacks=[PrintEvery(5)],
    )  # fmt: skip
    history = {name: first.history[name] + rest.history[name] for name in first.history}

    for epochs, reference in milestones.items():
        reported = 0.99006 if epochs == listing else None
        values = [history[f"val_{metric}"][epochs - 1] for metric in METRICS]
        report.add("A3", f"test accuracy after {epochs} epochs", values[0], reference=reference)
        report.add("A3", f"test accuracy after {epochs} epochs, element-wise", values[1], reported)
    report.add("A3", f"seconds for the first {listing} epochs, test set at every iteration", seconds, form=".1f")
    report.add("A3", f"seconds for the epochs up to {last}, test set at every epoch", more_seconds, form=".1f")
    report.save_curves(first, "a3_iterations", "iteration", ("loss", *METRICS), BATCH_AND_TEST)
    report.save_curves(history, "a3_epochs", "epoch", ("loss", *METRICS), ("training", "test set"))


if __name__ == "__main__":
    main()
