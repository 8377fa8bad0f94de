"""Predict the next character of Python's language reference, with an LSTM and with a Transformer block.

The text, 465,000 characters, comes with Python (``pydoc_data.topics``); ``help("while")`` shows a part of it. Both networks read
64 characters and predict the next character after each of them. The loss divided by log 2 is the number of bits per character. It
is log2 of the alphabet's size if all characters are predicted alike, and about 5 if they are predicted by their frequencies.

    python examples/char_rnn.py
"""

import argparse
import json
import math
import pydoc_data.topics
import time

import numpy as np
from arguments import output_file

import xpnet
from xpnet import Adam, Callback, Model, Sequential, schedules
from xpnet.layers import (
    LSTM,
    Dense,
    Embedding,
    LayerNormalization,
    PositionEmbedding,
    TimeDistributed,
    TransformerBlock,
)
from xpnet.losses import PerPosition, softmax_cross_entropy

LENGTH = 64


def networks(alphabet):
    return {
        "LSTM": [Embedding(alphabet, 32), LSTM(128, return_sequences=True), TimeDistributed(Dense(alphabet))],
        "Transformer": [
            Embedding(alphabet, 64), PositionEmbedding(LENGTH), TransformerBlock(64, 4, 256, use_causal_mask=True),
            LayerNormalization(), TimeDistributed(Dense(alphabet)),
        ],
    }  # fmt: skip


def read_text():
    """Return the text as character numbers, and the list of characters. Rare characters become "?"."""
    text = "\n\n".join(pydoc_data.topics.topics[name] for name in sorted(pydoc_data.topics.topics))
    found, counts = np.unique(list(text), return_counts=True)
    characters = sorted({"?", *found[counts >= 20]})
    number = {c: i for i, c in enumerate(characters)}
    return np.array([number.get(c, number["?"]) for c in text], dtype=np.int32), characters


def windows(tokens):
    """Return rows of LENGTH characters, and rows of the character that follows each of them."""
    n = (len(tokens) - 1) // LENGTH
    return tokens[: n * LENGTH].reshape(n, LENGTH), tokens[1 : n * LENGTH + 1].reshape(n, LENGTH)


def write(model, tokens, characters, count, rng):
    """Continue the text after `tokens`, drawing each character from its predicted probabilities."""
    for _ in range(count):
        p = xpnet.to_numpy(model.predict(tokens[None, -LENGTH:]))[0, -1].astype(float)
        tokens = np.append(tokens, rng.choice(len(p), p=p / p.sum()))
    return "".join(characters[i] for i in tokens[-count:])


class PrintBits(Callback):
    def on_epoch_end(self, epoch, logs=None):
        train, validation = logs["loss"] / math.log(2), logs["val_loss"] / math.log(2)
        print(f"  epoch {epoch + 1}: {train:.3f} bits per character, {validation:.3f} on unseen text", flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="auto", help="numpy, cupy, torch, jax or auto (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write bits per character and seconds to FILE")
    parser.add_argument("--quick", action="store_true", help="one epoch on a tenth of the text, only for testing")
    return parser.parse_args()


def main():
    args = parse_arguments()
    backend = xpnet.set_backend(args.backend)
    tokens, characters = read_text()
    if args.quick:
        tokens, args.epochs = tokens[: len(tokens) // 10], 1
    split = len(tokens) * 9 // 10
    train, validation = windows(tokens[:split]), windows(tokens[split:])
    frequency = np.bincount(tokens[split:], minlength=len(characters)) / (len(tokens) - split)
    entropy = -sum(p * math.log2(p) for p in frequency if p)
    print(
        f"{backend}: {len(tokens):,} characters, {len(characters)} different, {entropy:.2f} bits per character by frequency"
    )

    results = {}
    for name, layers in networks(len(characters)).items():
        steps = args.epochs * -(-len(train[0]) // args.batch_size)
        optimizer = Adam(schedules.OneCycle(0.005, steps), global_clipnorm=1.0)
        model = Model(Sequential(layers), PerPosition(softmax_cross_entropy), optimizer, ["accuracy"], args.seed)
        print(name)
        model.summary((LENGTH,))
        start = time.perf_counter()
        history = model.fit(
            *train, args.batch_size, args.epochs, verbose=0, callbacks=[PrintBits()], validation_data=validation
        )
        seconds = time.perf_counter() - start
        bits = [loss / math.log(2) for loss in history.history["val_loss"]]
        results[name] = {"bits_per_character": bits, "seconds": seconds}
        print(f"  {bits[-1]:.3f} bits per character on unseen text after {seconds:.0f} s. It writes:")
        print(
            "  | " + write(model, validation[0][0], characters, 200, np.random.default_rng(0)).replace("\n", "\n  | ")
        )
    if args.json:
        args.json.write_text(json.dumps({"backend": backend.name, "seed": args.seed, "results": results}, indent=2))


if __name__ == "__main__":
    main()
