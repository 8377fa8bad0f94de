"""Train an LSTM that reads MNIST row by row: it sees 28 rows of 28 pixels, one after the other, and then names the digit.

python examples/row_lstm.py
"""

import argparse
import json
import time

from arguments import output_file

import xpnet
from xpnet import Adam, Model, Sequential, schedules
from xpnet.layers import LSTM, Dense, Rescaling


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

    network = Sequential([Rescaling(1 / 255), LSTM(128), Dense(10)])
    steps = args.epochs * -(-len(x_train) // args.batch_size)
    optimizer = Adam(schedules.OneCycle(0.005, steps), global_clipnorm=1.0)
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
