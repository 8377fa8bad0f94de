"""Reproduce report E, "Neural network from scratch" (S. Gandyer, slides), from four people to the ten digits.

    python examples/report_e_slides.py --out figures --json report_e.json
    python examples/report_e_slides.py --only E5 E6

E1 separates two classes with five neurons, E2 and E3 detect the zeros of MNIST, and E4 to E6 classify all ten digits.
"""

import numpy as np
from reporting import PrintEvery, Report, argument_parser, mnist, rows, timed

import xpnet
from xpnet import SGD, Adam, Model, plotting
from xpnet.errors import optional_import
from xpnet.initializers import RandomNormal
from xpnet.layers import Dense, Flatten, ReLU, Rescaling, Sigmoid
from xpnet.plotting.figures import new_figure

metrics = optional_import("sklearn.metrics", "sklearn")

STANDARD = RandomNormal(stddev=1)
NOTES = """The mathematics of this report is correct. Two of its conventions are unusual:
- The rows of its confusion matrices are predictions. In scikit-learn, and in our figures, the rows are the true classes.
- Its momentum is a moving average, v = 0.9 v + 0.1 g, w -= lr v. The usual form, v = 0.9 v - lr g, w += v, follows the
  same path at a tenth of the learning rate."""


def four_people(report):
    """E1: predict 1 for a woman and 0 for a man from weight - 135 lb and height - 66 in, one person at a time."""
    report.heading("E1", "four people, 2-2-1 sigmoid, squared error, lr 0.1, one sample at a time, 20 seeds at once")
    people = np.array([[-2, -1], [25, 6], [17, 4], [-15, -6]])  # Alice, Bob, Charlie, Diana
    woman = np.array([1, 0, 0, 1])
    others = np.array([[-7, -3], [20, 2]])  # Emily and Frank

    def dense(units):
        return Dense(units, weight_initializer=STANDARD, bias_initializer=STANDARD)

    seeds = range(report.args.seed, report.args.seed + 20)
    model = Model([dense(2), Sigmoid(), dense(1), Sigmoid()], "mean_squared_error", SGD(0.1), seed=seeds)
    epochs = 50 if report.args.quick else 1000
    history, seconds = timed(model.fit, people, woman, batch_size=1, epochs=epochs, shuffle=False, verbose=0)

    p = xpnet.to_numpy(model.predict(others))  # one row for each seed
    report.add("E1", "P(woman) at (-7, -3)", p[0, 0], 0.951, seconds=seconds, form=".3f")
    report.add("E1", "P(woman) at (20, 2)", p[0, 1], 0.039, form=".3f")
    report.add("E1", "P(woman) at (-7, -3), 20 seeds: from, to", [p[:, 0].min(), p[:, 0].max()], form=".3f")
    report.add("E1", "P(woman) at (20, 2), 20 seeds: from, to", [p[:, 1].min(), p[:, 1].max()], form=".3f")
    report.save(plotting.learning_curves(history, labels=("mean and standard error of 20 seeds", "")), "e1_loss")


def zero_or_not(report, name, text, layers, reported):
    """E2 and E3: detect zeros, by gradient descent on all images."""
    report.heading(name, text)
    (x_train, y_train), (x_test, y_test) = mnist(report.args)
    data = (rows(x_train), y_train == 0), (rows(x_test), y_test == 0)
    model, history, seconds = gradient_descent(report.args, layers, "binary_cross_entropy", data)

    predicted = xpnet.to_numpy(model.predict_classes(data[1][0]))
    accuracy = float(np.mean(predicted == (y_test == 0)))
    report.add(name, "test accuracy", accuracy, (reported[0][0] + reported[1][1]) / 1e4, seconds=seconds, form=".2%")
    report.add(
        name, "confusion, rows predicted", metrics.confusion_matrix(predicted, y_test == 0, labels=[0, 1]), reported
    )
    save_page(report, name, history, "iteration", y_test == 0, predicted, ("not zero", "zero"))


def ten_digits(report):
    """E4: classify all ten digits, by gradient descent on all images."""
    report.heading("E4", "784-64 sigmoid-10, N(0, 1), all 60,000 images at once, lr 1, 2,000 iterations")
    (x_train, y_train), (x_test, y_test) = mnist(report.args)
    layers = [Dense(64, weight_initializer=STANDARD), Sigmoid(), Dense(10, weight_initializer=STANDARD)]
    data = (rows(x_train), y_train), (rows(x_test), y_test)
    model, history, seconds = gradient_descent(report.args, layers, "softmax_cross_entropy", data)

    predicted = xpnet.to_numpy(model.predict_classes(data[1][0]))
    report.add("E4", "test accuracy", float(np.mean(predicted == y_test)), 0.92, seconds=seconds, form=".2%")
    add_digits(report, "E4", y_test, predicted)
    save_page(report, "E4", history, "iteration", y_test, predicted)


def improved(report):
    """E5: improve E4 with mini-batches, momentum, and initial weights that preserve the variance."""
    report.heading(
        "E5", "784-64 sigmoid-10, N(0, 1/n_in), batch 128, v = 0.9 v + 0.1 g, w -= 4 v, 9 epochs; 5 seeds at once"
    )
    (x_train, y_train), (x_test, y_test) = mnist(report.args)
    layers = [
        Dense(64, weight_initializer=RandomNormal(stddev=784**-0.5)), Sigmoid(),
        Dense(10, weight_initializer=RandomNormal(stddev=64**-0.5)),
    ]  # fmt: skip
    seeds = range(report.args.seed, report.args.seed + 5)
    optimizer = SGD(4.0, momentum=0.9, moving_average=True)
    model = Model(layers, "softmax_cross_entropy", optimizer, metrics=["accuracy"], seed=seeds)
    history, seconds = timed(
        model.fit, rows(x_train), y_train, batch_size=128, epochs=2 if report.args.quick else 9, verbose=0,
        validation_data=(rows(x_test), y_test), callbacks=[PrintEvery(1)],
    )  # fmt: skip

    predicted = xpnet.to_numpy(model.predict_classes(rows(x_test)))
    accuracy = np.mean(predicted == y_test, axis=1)
    report.add("E5", "test accuracy", accuracy[0], 0.98, seconds=seconds, form=".2%", reference=0.972)
    report.add("E5", "test accuracy of 5 seeds", accuracy.tolist(), form=".2%")
    add_digits(report, "E5", y_test, predicted[0])
    save_page(report, "E5", history, "epoch", y_test, predicted[0])


def library_reference(report):
    """E6: the report's comparison with a library."""
    report.heading("E6", "784-64-64-10 ReLU, pixels/255 - 0.5, Adam, batch 32, 5 epochs")
    (x_train, y_train), (x_test, y_test) = mnist(report.args)
    layers = [Rescaling(1 / 255, -0.5), Flatten(), Dense(64), ReLU(), Dense(64), ReLU(), Dense(10)]
    model = Model(layers, "softmax_cross_entropy", Adam(), metrics=["accuracy"], seed=report.args.seed)
    history, seconds = timed(
        model.fit, x_train, y_train, batch_size=32, epochs=5, verbose=2, validation_data=(x_test, y_test)
    )

    predicted = xpnet.to_numpy(model.predict_classes(x_test))
    report.add("E6", "first five test digits", predicted[:5].tolist(), [7, 2, 1, 0, 4], seconds=seconds)
    report.add("E6", "test accuracy", float(np.mean(predicted == y_test)), form=".2%")
    report.save(plotting.image_grid(x_test[:5], [f"predicted {p}" for p in predicted[:5]]), "e6_digits")
    save_page(report, "E6", history, "epoch", y_test, predicted)


def gradient_descent(args, layers, loss, data):
    """Take 2,000 steps on all training images at lr 1, with test values at every 20th step. Return model, history, seconds."""
    (x_train, y_train), test = data
    model = Model(layers, loss, SGD(1.0), metrics=["accuracy"], seed=args.seed)
    iterations = 40 if args.quick else 2000
    history, seconds = timed(
        model.fit, x_train, y_train, batch_size=len(x_train), epochs=iterations, shuffle=False, verbose=0,
        validation_data=test, validation_freq=iterations, record_every=20, callbacks=[PrintEvery(100)],
    )  # fmt: skip
    return model, history, seconds


def add_digits(report, name, y_test, predicted):
    """Add precision, recall and F1 for each digit, and the confusion matrix."""
    scores = metrics.precision_recall_fscore_support(y_test, predicted, labels=range(10), zero_division=0)
    for score, values in zip(("precision", "recall", "F1"), scores, strict=False):
        report.add(name, f"{score} of 0 to 9", values.tolist(), form=".3f")
    report.add(
        name, "confusion, rows predicted", metrics.confusion_matrix(predicted, y_test, labels=range(10)).tolist()
    )


def save_page(report, name, history, per, labels, predicted, class_names=None):
    """Save learning curves beside the confusion matrix of the test images."""
    figure = new_figure(None, *((11, 5.4) if class_names is None else (9, 3.6)))
    curves, matrix = figure.subplots(1, 2, width_ratios=(1, 1.05))
    plotting.learning_curves(history, "accuracy", ax=curves, per=per, labels=("training", "test"))
    plotting.confusion_matrix(labels.astype(int), predicted, ax=matrix, class_names=class_names or range(10))
    report.save(figure, f"{name.lower()}_accuracy_and_confusion")


def main():
    parser = argument_parser(__doc__)
    names = ("E1", "E2", "E3", "E4", "E5", "E6")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="the experiments to run; default: all")
    args = parser.parse_args()
    report = Report("E", args)
    print(NOTES)
    experiments = {
        "E1": lambda: four_people(report),
        "E2": lambda: zero_or_not(
            report, "E2", "zero or not, 784-1, N(0, 0.01²), all 60,000 images at once, lr 1, 2,000 iterations",
            [Dense(1, weight_initializer=RandomNormal(stddev=0.01))], [[8980, 33], [40, 947]],
        ),
        "E3": lambda: zero_or_not(
            report, "E3", "zero or not, 784-64-1 sigmoid, N(0, 1), all 60,000 images at once, lr 1, 2,000 iterations",
            [Dense(64, weight_initializer=STANDARD), Sigmoid(), Dense(1, weight_initializer=STANDARD)],
            [[8984, 36], [36, 944]],
        ),
        "E4": lambda: ten_digits(report), "E5": lambda: improved(report), "E6": lambda: library_reference(report),
    }  # fmt: skip
    for name in args.only:
        experiments[name]()
    report.finish()


if __name__ == "__main__":
    main()
