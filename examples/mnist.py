"""Train a network on MNIST's handwritten digits."""

import numpy as np

import xpnet
from xpnet import Adam, Model, Sequential, schedules
from xpnet.layers import Dense, Dropout, Flatten, ReLU, Rescaling

epochs, batch_size = 15, 128
xpnet.set_backend("auto")  # CuPy on a GPU, else NumPy

try:
    (x_train, y_train), (x_test, y_test) = xpnet.datasets.mnist()
except xpnet.DatasetError as error:
    print(f"{error}\nTraining on scikit-learn's 8x8 digits instead, which are not MNIST.")
    (x_train, y_train), (x_test, y_test) = xpnet.datasets.digits()

network = Sequential([
    Rescaling(1 / x_train.max()),
    Flatten(),
    Dense(256, weight_initializer="he_uniform"),
    ReLU(),
    Dropout(0.2),
    Dense(128, weight_initializer="he_uniform"),
    ReLU(),
    Dropout(0.2),
    Dense(10),
])  # fmt: skip
steps = epochs * -(-len(x_train) // batch_size)
optimizer = Adam(schedules.CosineDecay(0.002, steps))
model = Model(network, "softmax_cross_entropy", optimizer, metrics=["accuracy"], seed=0)
model.summary(x_train.shape[1:])

model.fit(x_train, y_train, batch_size, epochs, validation_data=(x_test, y_test))

predicted = xpnet.to_numpy(model.predict_classes(x_test))
print(f"Test accuracy {np.mean(predicted == y_test):.2%}")
