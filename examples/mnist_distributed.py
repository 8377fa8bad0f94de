"""Train a network on MNIST's handwritten digits by several processes.

    mpiexec -n 4 python examples/mnist_distributed.py
    mpiexec -n 4 python examples/mnist_distributed.py --checkpoint run.safetensors    # again after a failure: it continues

The result is that of one process, ``python examples/mnist_distributed.py``, up to rounding.
"""

import argparse
from pathlib import Path

import xpnet
from xpnet import Adam, Model
from xpnet.callbacks import ModelCheckpoint
from xpnet.layers import Conv2D, Dense, Dropout, Flatten, MaxPooling2D, ReLU, Rescaling

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
parser.add_argument("--batch-size", type=int, default=128, help="of all processes together; default: %(default)s")
parser.add_argument("--samples", type=int, help="use only the first images")
parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="write FILE after each epoch, and continue from it")
args = parser.parse_args()

ranks = xpnet.distributed.init()  # the only line that training by several processes needs
# On GPUs, each process chooses its own: xpnet.set_backend("cupy", device=ranks.local_rank)

(x_train, y_train), (x_test, y_test) = xpnet.datasets.mnist()
x_train, y_train = x_train[: args.samples, ..., None], y_train[: args.samples]
x_test, y_test = x_test[: args.samples, ..., None], y_test[: args.samples]
network = [
    Rescaling(1 / 255),
    Conv2D(16, 3), ReLU(), MaxPooling2D(),
    Conv2D(32, 3), ReLU(), MaxPooling2D(),
    Flatten(), Dropout(0.3), Dense(10),
]  # fmt: skip
model = Model(network, "softmax_cross_entropy", Adam(0.002), ["accuracy"], seed=0)

resumed = args.checkpoint if args.checkpoint and args.checkpoint.exists() else None
saving = [ModelCheckpoint(args.checkpoint)] if args.checkpoint else []
model.fit(
    x_train, y_train, args.batch_size, args.epochs,
    validation_data=(x_test, y_test), callbacks=saving, resume_from=resumed,
)  # fmt: skip

loss, accuracy = model.evaluate(x_test, y_test)
if ranks.rank == 0:
    print(f"Test accuracy {accuracy:.2%} with {ranks.size} processes")
