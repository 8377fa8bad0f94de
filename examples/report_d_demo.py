"""Reproduce report D, "Neural network demo": a small network that learns from one image at a time.

    python examples/report_d_demo.py --out figures --json report_d.json

The report has no error. It does not state its learning rate. The script uses 0.05, the best of 0.02, 0.05, 0.1, 0.2 and 0.5.
From 0.02 to 0.2 the test accuracy after one pass is between 90 and 93 %; at 0.5 it is 79 %.
"""

import numpy as np
from reporting import Report, argument_parser, mnist, rows, timed

import xpnet
from xpnet import SGD, Model, plotting
from xpnet.layers import Dense, Sigmoid
from xpnet.plotting.figures import new_figure

LEARNING_RATE = 0.05


def main():
    args = argument_parser(__doc__).parse_args()
    report = Report("D", args)
    (images, y_train), (test_images, y_test) = mnist(args)
    x_train, x_test = rows(images), rows(test_images)

    report.heading("D", f"784 - 16 sigmoid - 10 softmax, lr {LEARNING_RATE}, one image at a time, one pass")
    print(f"The report has no error. It does not state its learning rate; this script uses {LEARNING_RATE}.")
    network = [Dense(16), Sigmoid(), Dense(10)]
    model = Model(network, "softmax_cross_entropy", SGD(LEARNING_RATE), ["accuracy"], args.seed)
    model.build((784,))
    untrained = model.evaluate(x_test, y_test).accuracy
    report.add("D", "test accuracy, untrained", untrained, 0.0958)

    _, seconds = timed(model.fit, x_train, y_train, batch_size=1, epochs=1, verbose=2)
    report.add("D", "test accuracy, trained", model.evaluate(x_test, y_test).accuracy, 0.8752, seconds)
    report.add("D", "training steps per second", len(x_train) / seconds, form=".0f")

    report.heading("D", "the forward pass of one image")
    probabilities = xpnet.to_numpy(model.predict(x_test[:1]))[0]
    for digit, p in enumerate(probabilities):
        print(f"  {digit}  {p:.4f}  {'#' * round(40 * p)}")
    print(f"  prediction {np.argmax(probabilities)}, label {y_test[0]}")

    report.heading("D", "ten random test images, and two random misclassified images")
    rng = np.random.default_rng(args.seed)
    probabilities = xpnet.to_numpy(model.predict(x_test))
    right = probabilities.argmax(axis=1) == y_test
    ten = rng.choice(len(x_test), 10, replace=False)
    chosen = [*ten, *rng.permutation(np.flatnonzero(~right))[:2]]
    for i in chosen:
        answer, p = np.argmax(probabilities[i]), np.max(probabilities[i])
        print(f"  test image {i}: {answer} with probability {p:.3f}: {'CORRECT' if right[i] else 'INCORRECT'}")
    report.add("D", "ten random test images, correct", int(np.sum(right[ten])))
    if args.out:
        figure = new_figure(None, 13, 9)
        for part, i in zip(figure.subfigures(4, 3).flat, chosen, strict=False):
            plotting.prediction_bars(test_images[i], probabilities[i], int(y_test[i]), figure=part)
        report.save(figure, "d_predictions")
    report.finish()


if __name__ == "__main__":
    main()
