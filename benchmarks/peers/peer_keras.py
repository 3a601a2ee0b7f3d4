"""Keras 3 on the backend that KERAS_BACKEND names. Best: its mixed bf16 policy and XLA."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers
from protocol import VOCABULARY, Clock, arrays, job, tell


class Places(layers.Layer):
    """Adds sinusoids."""

    def build(self, shape: tuple[int, ...]) -> None:
        rates = np.exp(np.arange(0, shape[-1], 2) * (-np.log(10000) / shape[-1]))
        angles = np.arange(shape[1])[:, None] * rates
        self.places = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(shape[1], -1).astype("float32")

    def call(self, x):
        return x + keras.ops.cast(keras.ops.convert_to_tensor(self.places), x.dtype)


class Learned(layers.Layer):
    """Adds a vector for each place, which is learned."""

    def build(self, shape: tuple[int, ...]) -> None:
        self.places = self.add_weight(shape=shape[1:], initializer=keras.initializers.RandomNormal(stddev=0.02))

    def call(self, x):
        return x + keras.ops.cast(self.places, x.dtype)


def blocks(x, width: int, depth: int, heads: int, activation, causal: bool = False):
    for _ in range(depth):
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.MultiHeadAttention(heads, width // heads)(y, y, use_causal_mask=causal)
        y = layers.LayerNormalization(epsilon=1e-5)(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation=activation)(y))
    return layers.LayerNormalization(epsilon=1e-5)(x)


def transformer(width: int, depth: int) -> keras.Model:
    inputs = keras.Input((28, 28))
    x = blocks(Places()(layers.Dense(width)(inputs)), width, depth, 4, "gelu")
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def gpt(width: int = 384, depth: int = 6, length: int = 256) -> keras.Model:
    inputs = keras.Input((length,), dtype="int32")
    table = layers.ReversibleEmbedding(
        VOCABULARY, width, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02)
    )

    def gelu(x):
        return keras.ops.gelu(x, approximate=True)

    x = blocks(Learned()(table(inputs)), width, depth, 6, gelu, causal=True)
    return keras.Model(inputs, table(x, reverse=True))


def convolution(x, channels: int, kernel: int, stride: int = 1):
    if kernel > 1:  # on all sides alike, as elsewhere; "same" would pad below and right alone where the stride is 2
        x = layers.ZeroPadding2D(kernel // 2)(x)
    x = layers.Conv2D(channels, kernel, stride, use_bias=False, kernel_initializer="he_normal")(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def resnet18() -> keras.Model:
    inputs = keras.Input((32, 32))
    x = layers.ReLU()(convolution(layers.Reshape((32, 32, 1))(inputs), 64, 3))
    before = 64
    for channels in [64, 64, 128, 128, 256, 256, 512, 512]:
        stride = 1 if channels == before else 2
        y = convolution(layers.ReLU()(convolution(x, channels, 3, stride)), channels, 3)
        x = layers.ReLU()(y + (x if stride == 1 else convolution(x, channels, 1, stride)))
        before = channels
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


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
    elif workload == "resnet18":
        return resnet18()
    elif workload == "gpt":
        return gpt()
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
    size = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    tell(clock.speed(), model.evaluate(x_test, y_test, batch_size=given.test_batch, verbose=0)[1], size)


main()
