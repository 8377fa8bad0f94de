"""Reproduce report B, hand-in assignment 1 (T. You, Uppsala): softmax regression and networks of two and four layers.

    python examples/report_b_assignment.py --out figures --json report_b.json
    python examples/report_b_assignment.py --as-written

The report uses y·p - y as the gradient of the logits; the correct gradient is p - y. In its softmax regression, the outputs of
wrong classes are therefore never lowered. The accuracy stalls below 90 %, and the cost rises. --as-written runs this version too.
"""

from dataclasses import dataclass

import numpy as np
from reporting import PrintEvery, Report, argument_parser, mnist, rows, timed

import xpnet
from xpnet import SGD, DivergenceError, Model, inspection, plotting
from xpnet.initializers import RandomNormal
from xpnet.layers import Dense, ReLU
from xpnet.losses import SoftmaxCrossEntropy, one_hot
from xpnet.schedules import Linear
from xpnet.tree import leaves

# The report's N(0, 0.01) to N(0, 0.02) mean factors of randn(), so the numbers are standard deviations
SMALL = RandomNormal(stddev=0.01)


@dataclass(frozen=True)
class AsWritten(SoftmaxCrossEntropy):
    """dz = y p - y instead of p - y"""

    def elements(self, y, z):
        l, dz = super().elements(y, z)
        y = one_hot(y, z)
        p = dz + y
        return l, y * p - y


def main():
    parser = argument_parser(__doc__)
    parser.add_argument("--as-written", action="store_true", help="also run B1 and B2 with the report's gradient")
    parser.add_argument(
        "--iterations", type=int, metavar="N", help="iterations of B1 (default: 3000; in the report 3000 to 5000)"
    )
    args = parser.parse_args()
    report = Report("B", args)
    print(
        "In B1 and B2, the report's gradient of the logits is y p - y. Only the rows 'as written' use it; others use p - y."
    )

    (images, y_train), (test_images, y_test) = mnist(args)
    train, test = (rows(images), y_train), (rows(test_images), y_test)
    losses = {"correct": "softmax_cross_entropy"} | ({"as written": AsWritten()} if args.as_written else {})
    for version, loss in losses.items():
        gradient_descent(report, version, loss, train, test)
    for version, loss in losses.items():
        for batch_size, reported in ((150, 0.8721), (1500, 0.8625)):
            mini_batches(report, version, loss, batch_size, reported, train, test)
    two_layers(report, train, test)
    four_layers(report, train, test)
    divergence(report, train, test)
    report.finish()


def network(*hidden, initializer=SMALL):
    """Dense layers with ReLU between them, and ten outputs."""
    layers = []
    for units in hidden:
        layers += [Dense(units, weight_initializer=initializer), ReLU()]
    return [*layers, Dense(10, weight_initializer=initializer)]


def classifier(report, layers, optimizer, loss="softmax_cross_entropy", seed=None):
    return Model(layers, loss, optimizer, ["accuracy"], report.args.seed if seed is None else seed)


def gradient_descent(report, version, loss, train, test):
    iterations = report.args.iterations or (30 if report.args.quick else 3000)
    report.heading(f"B1 {version}", f"softmax regression 784-10, all rows at once, {iterations} iterations")
    histories = {}
    for rate in (0.01, 0.02, 0.03):
        model = classifier(report, network(), SGD(rate), loss)
        history, seconds = timed(
            model.fit, *train, batch_size=len(train[0]), epochs=iterations, verbose=0, shuffle=False,
            validation_data=test, validation_freq=iterations, record_every=10, callbacks=[PrintEvery(250)],
        )  # fmt: skip
        histories[f"lr {rate}"] = history

        row, costs = f"B1 {version}, lr {rate}", history.iterations["val_loss"]
        accuracy = model.evaluate(*test).accuracy
        report.add(row, "test accuracy", accuracy, "close to 90 %", seconds, ".2%")
        rising = None if rate == 0.01 else "rising again"
        report.add(row, "test cost, lowest and last", [min(costs), costs[-1]], rising, form=".3f")
        figure = plotting.weight_images(model.parameters[0]["weight"], titles=range(10))
        report.save(figure, file_name("b1", version, f"lr_{rate}_weights"))
    report.save_curves(histories, file_name("b1", version, "curves"), "iteration", labels=("training set", "test set"))


def mini_batches(report, version, loss, batch_size, reported, train, test):
    batch_size, epochs = (batch_size // 10, 4) if report.args.quick else (batch_size, 300)
    steps = len(train[0]) // batch_size
    report.heading(f"B2 {version}", f"batches of {batch_size} drawn with replacement, {epochs} epochs")

    rate = Linear(0.01, steps - 5, 0.0001, restart_every_epoch=True)
    model = classifier(report, network(), SGD(rate), loss)
    history, seconds = timed(
        model.fit, *train, batch_size=batch_size, epochs=epochs, verbose=0, sample_with_replacement=True,
        validation_data=test, validation_freq=epochs, record_every=5, callbacks=[PrintEvery(10)],
    )  # fmt: skip
    means = {  # of the iterations recorded in each epoch
        name: np.reshape(values, (epochs, -1)).mean(axis=1).tolist()
        for name, values in history.iterations.items() if name != "step"
    }  # fmt: skip

    row = f"B2 {version}, batch {batch_size}"
    report.add(row, "test accuracy", history.iterations["val_accuracy"][-1], reported, seconds, ".2%")
    report.add(row, "test accuracy, mean of the last epoch", means["val_accuracy"][-1], form=".2%")
    report.add(row, "mini-batch accuracy, mean of the last epoch", means["accuracy"][-1], form=".2%")
    report.add(row, "test cost, mean of the first and the last epoch", [means["val_loss"][0], means["val_loss"][-1]])
    labels = ("mini-batch", "test set")
    report.save_curves(history, file_name("b2", version, f"{batch_size}_iterations"), "iteration", labels=labels)
    report.save_curves(means, file_name("b2", version, f"{batch_size}_epochs"), "epoch", labels=labels)


def file_name(*parts):
    return "_".join(parts).replace(" ", "_")


def fit(model, report, train, test, record_every=None):
    """Train a network of B3 or B4: batches of 1,500, 50 epochs."""
    batch_size, epochs = (150, 3) if report.args.quick else (1500, 50)
    return timed(
        model.fit, *train, batch_size=batch_size, epochs=epochs, verbose=0, validation_data=test,
        callbacks=[PrintEvery(10)], record_every=record_every,
    )  # fmt: skip


def two_layers(report, train, test):
    report.heading("B3", "784 - 100 ReLU - 10, lr 0.8, batch 1,500, 50 epochs")
    model = classifier(report, network(100), SGD(0.8))
    history, seconds = fit(model, report, train, test, record_every=5)
    accuracy = model.evaluate(*test).accuracy
    report.add("B3", "test accuracy", accuracy, 0.9775, seconds, ".2%", reference=0.977)
    report.save_curves(history, "b3_iterations", "iteration", labels=("mini-batch", "test set"))
    report.save_curves(history, "b3_epochs", labels=("training", "test set"))


def four_layers(report, train, test):
    report.heading("B4", "784 - 50 - 50 - 50 - 10 (its listing) or 100 - 100 - 100 (its text), otherwise as B3")
    seeds = range(report.args.seed, report.args.seed + (1 if report.args.quick else 3))
    for units, reference in ((50, 0.951), (100, "diverged")):
        last, best, histories, total, at_chance = [], [], {}, 0.0, None
        for seed in seeds:
            print(f"{units}-{units}-{units}, seed {seed}:")
            model = classifier(report, network(units, units, units), SGD(0.8), seed=seed)
            try:
                _, seconds = fit(model, report, train, test)
                last.append(model.evaluate(*test).accuracy)
                total += seconds
                at_chance = model if last[-1] < 0.2 else at_chance
            except DivergenceError as error:
                last.append(f"diverged at step {error.step}, {error.layer}")
            if model.history.epoch:  # empty if the model diverged in the first epoch
                histories[f"seed {seed}"] = model.history
                best.append(max(model.history.history["val_accuracy"]))
        row, figure = f"B4 {units}-{units}-{units}", f"test accuracy, seeds {seeds[0]} to {seeds[-1]}"
        report.add(row, figure, last, "about 93 %, unstable", total, ".2%", reference)
        report.add(row, f"{figure}, best epoch", best, form=".2%")
        if histories:
            report.save_curves(histories, f"b4_{units}_epochs", labels=("training", "test set"))
        if at_chance:
            statistics = inspection.layer_statistics(at_chance, train[0][:1500], train[1][:1500])
            zeros = {layer["layer"]: layer["activation"]["zeros"] for layer in statistics if "ReLU" in layer["layer"]}
            report.add(row, "a network at chance: zeros in its ReLU layers", list(zeros.values()), form=".0%")
            report.save(plotting.layer_statistics(statistics), f"b4_{units}_at_chance")


def divergence(report, train, test):
    report.heading("B4 guard", "100 - 100 - 100 with He's initializer; the learning rate doubles until a run diverges")
    layers = network(100, 100, 100, initializer="he_normal")
    for rate in (0.8, 1.6, 3.2, 6.4, 12.8, 25.6):
        model = classifier(report, layers, SGD(rate))
        try:
            model.fit(*train, batch_size=150 if report.args.quick else 1500, epochs=1, verbose=0)
            print(f"  lr {rate}: test accuracy {model.evaluate(*test).accuracy:.2%} after one epoch")
        except DivergenceError as error:
            print(f"  lr {rate}: {error}")
            finite = all(np.all(np.isfinite(xpnet.to_numpy(p))) for p in leaves(model.parameters))
            report.add("B4 guard", f"lr {rate}", f"stopped at step {error.step}: {error.layer}")
            report.add("B4 guard", "are the model's parameters finite?", "yes" if finite else "no")
            break

    for remedy, optimizer in {"lr 0.2": SGD(0.2), "lr 0.8, global_clipnorm 1": SGD(0.8, global_clipnorm=1.0)}.items():
        print(f"remedy, {remedy}:")
        model = classifier(report, layers, optimizer)
        history, seconds = fit(model, report, train, test)
        accuracy = model.evaluate(*test).accuracy
        report.add("B4 remedy", f"test accuracy, He's initializer, {remedy}", accuracy, "about 93 %", seconds, ".2%")
        report.save_curves(history, file_name("b4_remedy", remedy.replace(",", "")), labels=("training", "test set"))


if __name__ == "__main__":
    main()
