"""Train a network on MNIST and write a page on which anybody can draw digits and step through backpropagation.

python examples/mnist_playground.py
python examples/mnist_playground.py --convolution --out cnn.html
"""

import argparse
from pathlib import Path

import xpnet
from xpnet import Adam, Model, schedules
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D, RandomTranslation, ReLU, Rescaling, Reshape


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default="digits.html", metavar="FILE", help="default: %(default)s")
    parser.add_argument(
        "--convolution", action="store_true", help="a small convolutional network instead of a dense one"
    )
    parser.add_argument("--data-dir", help="a folder with the four IDX files, plain or .gz")
    parser.add_argument("--epochs", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="one epoch on 5,000 images, only for testing")
    return parser.parse_args()


def main():
    args = parse_arguments()
    (x_train, y_train), (x_test, y_test) = xpnet.datasets.mnist(args.data_dir)
    if args.quick:
        x_train, y_train, x_test, y_test, args.epochs = x_train[:5000], y_train[:5000], x_test[:500], y_test[:500], 1

    # Shifted images make the network accept drawings that are not quite in the middle
    start = [Rescaling(1 / 255), Reshape((28, 28, 1)), RandomTranslation(2, 2)]
    if args.convolution:
        # ReLU after pooling gives the same result as before it, with a quarter of the work
        middle = [Conv2D(8, 3), MaxPooling2D(), ReLU(), Conv2D(16, 3), MaxPooling2D(), ReLU(), Flatten(), Dropout(0.2)]
    else:
        middle = [Flatten(), Dense(64), ReLU(), Dense(32), ReLU()]
    rate = schedules.OneCycle(0.01, args.epochs * -(-len(x_train) // 128))
    model = Model([*start, *middle, Dense(10)], "softmax_cross_entropy", Adam(rate), metrics=["accuracy"], seed=0)
    model.fit(x_train, y_train, 128, args.epochs)
    print(f"Test accuracy {model.evaluate(x_test, y_test).accuracy:.2%}")

    page = model.playground(args.out, x_test, y_test, title="Draw a digit")
    print(f"{page}: {page.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main()
