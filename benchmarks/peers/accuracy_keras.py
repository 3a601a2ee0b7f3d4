"""The textbook Keras program, until validation rows reach an accuracy.

Called as ``accuracy_keras.py DATA.npz NETWORK TARGET SEED``.

Batches of 128, Adam, and up to 15 epochs, with a tenth of the training rows for validation, as in Keras's own examples.
It stops after the epoch in which the validation accuracy is there, and then reads the rows for testing, once.
"""

from __future__ import annotations

import json
import sys

import keras
import numpy as np
from keras import layers

# As in the workloads; and the network of Keras's example of digits, which drops half of what its last layer reads.
NETWORKS = {
    "mlp": [layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(64, "relu")],
    "cnn": [
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"), layers.Flatten(), layers.Dense(64, "relu"),
    ],
    "convnet": [
        layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(), layers.Flatten(), layers.Dropout(0.5),
    ],
}  # fmt: skip
EPOCHS = 15


class Until(keras.callbacks.Callback):
    """Stops when the validation accuracy is there."""

    def __init__(self, target: float) -> None:
        super().__init__()
        self.target = target

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        assert logs is not None
        self.model.stop_training = logs["val_accuracy"] >= self.target


def main() -> None:
    path, network, target, seed = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
    keras.utils.set_random_seed(seed)
    found = np.load(path, allow_pickle=False)
    x_train, x_test = (found[f"image_{part}"].astype("float32")[..., None] / 255 for part in ("train", "test"))
    y_train, y_test = found["label_train"], found["label_test"]
    model = keras.Sequential([keras.Input((28, 28, 1)), *NETWORKS[network], layers.Dense(10, "softmax")])
    model.compile(loss="sparse_categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    history = model.fit(
        x_train, y_train, batch_size=128, epochs=EPOCHS, validation_split=0.1, callbacks=[Until(target)], verbose=2
    ).history["val_accuracy"]
    told = {
        "epochs": len(history),
        "validation": history[-1],
        "reached": history[-1] >= target,
        "test": model.evaluate(x_test, y_test, verbose=0)[1],
    }
    print(json.dumps(told))


main()
