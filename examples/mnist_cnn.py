"""Train a small convolutional network on MNIST: 99 % test accuracy within 5 epochs, on the CPU.

python examples/mnist_cnn.py
python examples/mnist_cnn.py --backend cupy --json cnn.json
"""

import argparse
import json
import time

from arguments import output_file

import xpnet
from xpnet import Adam, Model, Sequential, schedules
from xpnet.layers import BatchNormalization, Conv2D, Dense, Dropout, Flatten, MaxPooling2D, ReLU, Rescaling, Reshape


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="numpy, cupy, torch, jax or auto (default: %(default)s)")
    parser.add_argument("--data-dir", help="a folder with the four IDX files, plain or .gz")
    parser.add_argument("--epochs", type=int, default=5, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=128, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write settings, accuracy and seconds to FILE")
    parser.add_argument("--quick", action="store_true", help="one epoch on 2,000 images, only for testing")
    return parser.parse_args()


def main():
    args = parse_arguments()
    backend = xpnet.set_backend(args.backend)
    (x_train, y_train), (x_test, y_test) = xpnet.datasets.mnist(args.data_dir)
    if args.quick:
        x_train, y_train, x_test, y_test, args.epochs = x_train[:2000], y_train[:2000], x_test[:500], y_test[:500], 1

    network = Sequential([
        Rescaling(1 / 255), Reshape((28, 28, 1)),
        # ReLU after pooling gives the same result as before it, with a quarter of the work
        Conv2D(16, 3, weight_initializer="he_normal"), MaxPooling2D(2), ReLU(),
        Conv2D(32, 3, weight_initializer="he_normal"), BatchNormalization(momentum=0.9), MaxPooling2D(2), ReLU(),
        Flatten(), Dropout(0.3), Dense(10),
    ])  # fmt: skip
    optimizer = Adam(schedules.OneCycle(0.01, args.epochs * -(-len(x_train) // args.batch_size)))
    model = Model(network, "softmax_cross_entropy", optimizer, metrics=["accuracy"], seed=args.seed)
    print(backend)
    model.summary(x_train.shape[1:])

    start = time.perf_counter()
    history = model.fit(x_train, y_train, args.batch_size, args.epochs, validation_data=(x_test, y_test))
    seconds = time.perf_counter() - start

    accuracy = history.history["val_accuracy"][-1]
    print(f"Test accuracy {accuracy:.2%} after {args.epochs} epochs in {seconds:.1f} s on {backend.name}")
    if args.json:
        settings = {"backend": backend.name, "device": str(backend.device), "seed": args.seed, "epochs": args.epochs}
        result = settings | {"seconds": seconds, "test_accuracy": accuracy, "history": history.history}
        args.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
