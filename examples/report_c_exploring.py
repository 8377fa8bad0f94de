"""Reproduce report C, "Exploring neural networks" (A. Rayamajhi, A. Regmi), which compares four initializers.

    python examples/report_c_exploring.py --out figures --json report_c.json
    python examples/report_c_exploring.py --as-written

The network is 784-100 tanh-10 with dropout that keeps 0.9 of the units. Full-batch gradient descent trains it for 100 epochs with
the learning rate 0.2, on data from a CSV file of 42,000 rows. The report trains each network once. The script trains each network
with five seeds at once, and also evaluates it on the other 28,000 images of MNIST.
"""

import itertools
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reporting import PrintEvery, Report, argument_parser, mnist, rows, timed

import xpnet
from xpnet import SGD, Model, plotting
from xpnet.initializers import RandomUniform
from xpnet.layers import Dense, Dropout, Tanh
from xpnet.layers.base import Layer
from xpnet.random import bernoulli

SEEDS = 5
T95 = 2.776  # Student's t with SEEDS - 1 degrees of freedom is within ± this with a probability of 95 %

BOUNDS = {  # the bounds of the report's uniform distributions, and its train and test accuracy
    "random": (lambda n_in, n_out: 0.05, 0.8877, 0.9055),
    "LeCun": (lambda n_in, n_out: (1 / n_in) ** 0.5, 0.8889, 0.8930),
    "Xavier": (lambda n_in, n_out: (2 / (n_in + n_out)) ** 0.5, 0.8885, 0.8820),
    "He": (lambda n_in, n_out: (2 / n_in) ** 0.5, 0.88915, 0.8805),
}
CURVES = ("training", "test")  # the training values include dropout and are taken before each step
STANDARD = ("lecun_uniform", "glorot_uniform", "he_uniform")

NOTES = """Differences between the report and this script:
- Its bounds for LeCun, Xavier and He are the standard deviations that these authors recommend. A uniform distribution
  with this standard deviation has bounds sqrt(3) times as wide. The second table uses these bounds.
- Its dropout draws one mask for all images in each step and does not divide by 0.9, so inference sees sums 11 % larger
  than training. xpnet draws each element and divides. --as-written also trains with the report's dropout.
- It trains each network once and ranks the four by 2,000 test images, where one standard error is 0.7 points.
"s.e." below is the standard error of the mean over five seeds. For each seed, all four initializers scale the same random
numbers and drop the same units, so their differences are paired."""


@dataclass(frozen=True)
class ReportDropout(Layer):
    """y = x · mask,   with one mask for the whole batch and no division by `keep`"""

    needs_key = True

    keep: float

    def forward(self, params, x, *, key):
        mask = bernoulli(key, self.keep, like=x[..., :1, :])
        return x * mask, lambda dy, need_dx=True: (dy * mask, {})

    def __call__(self, params, x):
        return x


def uniform(bound):
    """Return a function that creates a dense layer with uniform weights within ±bound(inputs, outputs)."""

    def dense(n_in, n_out):
        b = bound(n_in, n_out)
        return Dense(n_out, weight_initializer=RandomUniform(-b, b))

    return dense


def load(args):
    """Return the report's data, a shuffled CSV file of 42,000 rows, as train and test parts, and the remaining images."""
    (x_train, y_train), (x_test, y_test) = mnist(args)
    images, labels = np.concatenate([x_train, x_test]), np.concatenate([y_train, y_test])
    count, train = (2200, 2000) if args.quick else (42_000, 40_000)
    rng = np.random.default_rng(args.seed)
    order = rng.permutation(len(images))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "digits.csv"
        xpnet.datasets.write_label_first_csv(path, images[order[:count]], labels[order[:count]])
        x, y = xpnet.datasets.label_first_csv(path)
        print(f"\nWrote and read {path.name}: {len(x):,} rows, {path.stat().st_size / 1e6:.0f} MB", flush=True)
    shuffled, unseen = rng.permutation(count), order[count:]
    x, y = x[shuffled], y[shuffled]
    return (x[:train], y[:train]), (x[train:], y[train:]), (images[unseen], labels[unseen])


def train(report, name, dense, dropout, data):
    """Train SEEDS networks at once -> the model, its history, all accuracies on each part of the data, the seconds."""
    (x_train, y_train), test, _ = data
    seeds = range(report.args.seed, report.args.seed + SEEDS)
    network = [dense(784, 100), Tanh(), dropout, dense(100, 10)]
    model = Model(network, "softmax_cross_entropy", SGD(0.2), metrics=["accuracy"], seed=seeds)
    print(f"\n{name}: {SEEDS} networks at once")
    history, seconds = timed(
        model.fit, x_train, y_train, batch_size=len(x_train), epochs=5 if report.args.quick else 100, shuffle=False,
        verbose=0, validation_data=test, callbacks=[PrintEvery(10)],
    )  # fmt: skip
    accuracy = [np.array(model.evaluate(*part).accuracy) for part in data]
    return model, history, accuracy, seconds


def study(report, schemes, dropout, data, text=""):
    """Train the networks of each scheme and add rows -> histories, accuracies on unseen images, the last model."""
    parts = (f"{len(data[0][0]):,} train", f"{len(data[1][0]):,} test", f"{len(data[2][0]):,} unseen")
    histories, unseen = {}, {}
    for name, (dense, *reported) in schemes.items():
        model, histories[name], accuracy, seconds = train(report, name + text, dense, dropout, data)
        for part, value, told in zip(parts, accuracy, (*reported, None, None, None), strict=False):
            figure = f"{name}{text}: {part}, mean and s.e."
            report.add("C", figure, mean_and_error(value), told, seconds if "train" in part else None, ".2%")
        unseen[name] = accuracy[2]
    return histories, unseen, model


def mean_and_error(values):
    """Return the mean over the seeds and its standard error."""
    return [float(np.mean(values)), float(np.std(values, ddof=1) / len(values) ** 0.5)]


def judge_ranking(report, unseen):
    """Test whether each scheme beats the next in the report's ranking, with paired differences for each seed."""
    names = list(BOUNDS)
    ranking = names[0]
    for better, worse in itertools.pairwise(names):
        mean, error = mean_and_error(unseen[better] - unseen[worse])
        told = BOUNDS[better][2] - BOUNDS[worse][2]
        report.add("C", f"{better} - {worse}, paired, unseen, mean and s.e.", [mean, error], told, form="+.2%")
        ranking += f" {'>' if mean > T95 * error else '<' if mean < -T95 * error else '?'} {worse}"
    reported = " > ".join(names)
    report.add("C", "ranking (?: not significant)", ranking, reported)
    print(f"  The report's ranking {'holds' if ranking == reported else 'does not hold'} with {SEEDS} seeds.")


def other_test_sets(report, model, test_size, unseen):
    """Evaluate one network on other test sets of the report's size, which shows the noise of a ranking by one test set."""
    images, labels = unseen
    right = xpnet.to_numpy(model.predict_classes(images))[0] == labels
    sets = right[: len(right) // test_size * test_size].reshape(-1, test_size).mean(axis=1)
    reported = [test for _, _, test in BOUNDS.values()]
    text = f"one network on {len(sets)} other test sets of {test_size:,}: lowest and highest"
    report.add("C", text, [sets.min(), sets.max()], [min(reported), max(reported)], form=".2%")
    report.add("C", "standard deviation over these test sets", sets.std(ddof=1), form=".2%")


def main():
    parser = argument_parser(__doc__)
    parser.add_argument("--as-written", action="store_true", help="also train with the report's dropout")
    args = parser.parse_args()
    report = Report("C", args)
    print(NOTES)
    bytes_and_labels = load(args)
    x_train, y_train = bytes_and_labels[0]
    data = [(rows(x), y) for x, y in bytes_and_labels]
    chosen = np.random.default_rng(args.seed).choice(len(x_train), 25, replace=False)
    report.save(plotting.image_grid(x_train[chosen].reshape(-1, 28, 28), y_train[chosen]), "c_digits")

    schemes = {name: (uniform(bound), *reported) for name, (bound, *reported) in BOUNDS.items()}
    report.heading("C", "the report's four initializers")
    histories, unseen, model = study(report, schemes, Dropout(0.1), data)
    report.save_curves(histories, "c_curves", labels=CURVES)
    judge_ranking(report, unseen)
    other_test_sets(report, model, len(data[1][0]), data[2])

    report.heading("C", "the same names with their standard bounds")
    standard = {name: (lambda _, n_out, name=name: Dense(n_out, weight_initializer=name),) for name in STANDARD}
    histories, _, _ = study(report, standard, Dropout(0.1), data)
    report.save_curves(histories, "c_curves_standard_bounds", labels=CURVES)

    if args.as_written:
        report.heading("C", "the report's four initializers with its own dropout")
        histories, _, _ = study(report, schemes, ReportDropout(0.9), data, " as written")
        report.save_curves(histories, "c_curves_as_written", labels=CURVES)
    report.finish()


if __name__ == "__main__":
    main()
