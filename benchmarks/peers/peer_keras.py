"""Keras 3 on the backend that KERAS_BACKEND names. Best: its mixed bf16 policy and XLA."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from protocol import Clock, arrays, job, tell


class Places(layers.Layer):
    """Adds sinusoids."""

    def build(self, shape: tuple[int, ...]) -> None:
        rates = np.exp(np.arange(0, shape[-1], 2) * (-np.log(10000) / shape[-1]))
        angles = np.arange(shape[1])[:, None] * rates
        self.places = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(shape[1], -1).astype("float32")

    def call(self, x):
        return x + keras.ops.cast(keras.ops.convert_to_tensor(self.places), x.dtype)


def transformer(width: int, depth: int) -> keras.Model:
    inputs = keras.Input((28, 28))
    x = Places()(layers.Dense(width)(inputs))
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(y, y)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(y))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-5)(x))
    return keras.Model(inputs, layers.Dense(10)(x))


def network(workload: str) -> keras.Model:
    if workload == "mlp":
        parts = [layers.Flatten(), layers.Dense(64, "relu"), layers.Dense(64, "relu")]
    elif workload == "cnn":
        parts = [
            layers.Reshape((28, 28, 1)), layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(), layers.Dense(64, "relu"),
        ]  # fmt: skip
    elif workload == "lstm":
        parts = [layers.LSTM(64, return_sequences=True), layers.LSTM(64)]
    else:
        return transformer(*{"transformer2": (128, 2), "transformer6": (256, 6)}[workload])
    return keras.Sequential([keras.Input((28, 28)), *parts, layers.Dense(10)])


def main() -> None:
    given = job()
    keras.utils.set_random_seed(given.seed)
    if given.mode == "best":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    x, y, x_test, y_test = arrays(given.data)
    model = network(given.workload)
    model.compile(
        optimizer=keras.optimizers.Adam(1e-3),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=True if given.mode == "best" and keras.backend.backend() != "torch" else "auto",
    )
    clock = Clock(len(x))
    told = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: clock.epoch())
    model.fit(x, y, batch_size=given.batch, epochs=given.epochs, callbacks=[told], verbose=2)
    tell(clock.speed(), model.evaluate(x_test, y_test, verbose=0)[1])


main()
