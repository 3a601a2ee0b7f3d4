"""Mel spectra and cepstra against librosa, padding that changes nothing, masks over time and frequency."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.spectrum import SpecAugment, Spectrum, SpectrumStem, dct_matrix, mel_filters

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    librosa = pytest.importorskip("librosa")
    import scipy.fft


def spectrum(features: str = "log_mel", **changes: int) -> Spectrum:
    chosen = {"rate": 16000, "window": 400, "hop": 160, "bands": 80, "coefficients": 13} | changes
    return Spectrum(features, **chosen)


def noise(samples: int, seed: int = 0, loudness: float = 3000) -> torch.Tensor:
    wave = np.random.default_rng(seed).normal(0, loudness, samples)
    return torch.from_numpy(wave.clip(-32768, 32767).astype(np.int16))


def alone(made: torch.nn.Module, clip: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return made(clip[None], torch.ones(1, len(clip), dtype=torch.bool))


def padded(*clips: torch.Tensor, junk: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(clip) for clip in clips)
    values = torch.full((len(clips), longest), junk, dtype=clips[0].dtype)
    for row, clip in zip(values, clips, strict=True):
        row[: len(clip)] = clip
    lengths = torch.tensor([len(clip) for clip in clips])
    return values, torch.arange(longest) < lengths[:, None]


# --- against librosa


@pytest.mark.parametrize(("rate", "size", "bands"), [(16000, 512, 80), (8000, 256, 40), (44100, 2048, 128)])
def test_filters_are_librosas(rate, size, bands) -> None:
    want = librosa.filters.mel(sr=rate, n_fft=size, n_mels=bands)
    np.testing.assert_allclose(mel_filters(rate, size, bands).numpy(), want, atol=1e-6, rtol=1e-5)


def test_cosines_are_scipys() -> None:
    x = np.random.default_rng(0).normal(size=(5, 40))
    want = scipy.fft.dct(x, type=2, norm="ortho", axis=1)[:, :13]
    np.testing.assert_allclose(x @ dct_matrix(13, 40).numpy().T, want, atol=1e-5)


def librosas_mel(clip: torch.Tensor, rate: int, window: int, hop: int, bands: int) -> np.ndarray:
    """Its windows lie in the middle of the Fourier transform's, ours at the start: a shift, which power is blind to."""
    size = 1 << (window - 1).bit_length()
    before = (size - window) // 2
    wave = np.pad(clip.double().numpy() / 32768, (before, size - window - before))
    return librosa.feature.melspectrogram(
        y=wave, sr=rate, n_fft=size, win_length=window, hop_length=hop, center=False, n_mels=bands
    )


@pytest.mark.parametrize(("rate", "window", "hop", "bands"), [(16000, 400, 160, 80), (8000, 256, 80, 40)])
@pytest.mark.parametrize("samples", [8000, 8037])
def test_log_mel_is_librosas(rate, window, hop, bands, samples) -> None:
    clip = noise(samples)
    got, real = alone(spectrum(rate=rate, window=window, hop=hop, bands=bands), clip)
    want = np.log(np.maximum(librosas_mel(clip, rate, window, hop, bands), 1e-10)).T
    assert got.shape[1] == 1 + (samples - window) // hop
    assert real.all()
    np.testing.assert_allclose(got[0].numpy(), want, atol=1e-4)


def test_mfcc_is_librosas() -> None:
    clip = noise(16000)
    got, _ = alone(spectrum("mfcc"), clip)
    decibels = librosa.power_to_db(librosas_mel(clip, 16000, 400, 160, 80), top_db=None)
    want = librosa.feature.mfcc(S=decibels, n_mfcc=13).T
    np.testing.assert_allclose(got[0].numpy(), want, atol=1e-4)


def test_a_tone_lights_its_band() -> None:
    time = np.arange(16000) / 16000
    for hertz in (300, 1000, 4000):
        clip = torch.from_numpy((10000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16))
        got, _ = alone(spectrum(), clip)
        centres = librosa.mel_frequencies(82, fmax=8000)[1:-1]
        assert abs(int(got[0].mean(0).argmax()) - int(np.abs(centres - hertz).argmin())) <= 1


def test_silence_stands_on_the_floor() -> None:
    got, _ = alone(spectrum(), torch.zeros(1000, dtype=torch.int16))
    assert torch.equal(got, torch.full_like(got, float(np.log(np.float32(1e-10)))))


def test_waves_are_the_samples() -> None:
    clip = noise(1000)
    got, _ = alone(spectrum("wave"), clip)
    want = torch.stack([clip[start : start + 400] for start in range(0, 601, 160)]) / 32768
    assert torch.equal(got[0], want)


# --- padding


@settings(max_examples=25, deadline=None)
@given(
    short=st.integers(50, 3000),
    longer=st.integers(0, 3000),
    junk=st.sampled_from([0, 12345, -32768]),
    features=st.sampled_from(["log_mel", "mfcc", "wave"]),
)
def test_a_longer_clip_beside_it_changes_no_frame(short, longer, junk, features) -> None:
    clip, other = noise(short), noise(short + longer, seed=1)
    made = spectrum(features, window=50, hop=20, bands=20, rate=2000)
    want, _ = alone(made, clip)
    got, real = made(*padded(clip, other, junk=junk))
    frames = 1 + (short - 50) // 20
    assert real[0].tolist() == [frame < frames for frame in range(real.shape[1])]
    assert real[1].all()
    torch.testing.assert_close(got[0, :frames], want[0], atol=1e-4, rtol=1e-5)


def test_a_row_shorter_than_a_window_keeps_one_frame() -> None:
    clip, other = noise(100), noise(900, seed=1)
    got, real = spectrum()(*padded(clip, other, junk=999))
    assert real.tolist() == [[True, False, False, False], [True] * 4]
    filled, _ = alone(spectrum(), torch.cat([clip, torch.zeros(300, dtype=torch.int16)]))
    torch.testing.assert_close(got[0, 0], filled[0, 0])
    single, real = alone(spectrum(), clip)
    assert real.tolist() == [[True]]
    torch.testing.assert_close(single[0, 0], got[0, 0])


@pytest.mark.parametrize("width", [0, 1, 500])
def test_a_row_without_a_sample_has_no_frame(width) -> None:
    got, real = spectrum()(torch.ones(2, width, dtype=torch.int16), torch.zeros(2, width, dtype=torch.bool))
    assert got.shape == (2, 1, 80)
    assert not real.any()
    assert got.isfinite().all()


def test_half_precision_around_it_does_not_reach_it() -> None:
    clip = noise(4000)
    want, _ = alone(spectrum(), clip)
    with torch.autocast("cpu", torch.bfloat16):
        got, _ = alone(spectrum(), clip)
    assert torch.equal(got, want)


def test_gradients_reach_the_samples() -> None:
    values = noise(1000).float().requires_grad_()
    got, _ = alone(spectrum(), values)
    got.sum().backward()
    assert values.grad is not None
    assert values.grad.isfinite().all()
    assert (values.grad != 0).float().mean() > 0.8


# --- the stem


def stem(augment: SpecAugment | None = None, most: int = 10**6, features: str = "log_mel") -> SpectrumStem:
    made = spectrum(features)
    return SpectrumStem(made, [2.0] * made.width, [4.0] * made.width, most, augment)


def test_the_stem_standardises_and_clears_padding() -> None:
    values, mask = padded(noise(1000), noise(5000))
    want, real = spectrum()(values, mask)
    got, same = stem()(values, mask)
    assert torch.equal(same, real)
    torch.testing.assert_close(got[real], (want[real] - 2) / 4)
    assert not got[~real].any()


def test_the_stem_listens_no_longer_than_it_may() -> None:
    clip = noise(5000)
    got, real = alone(stem(most=1500), clip)
    want, _ = alone(stem(), clip[:1500])
    assert real.shape == (1, 1 + (1500 - 400) // 160)
    torch.testing.assert_close(got, want)


def test_spec_augment_only_while_training_and_from_torchs_generator() -> None:
    values, mask = padded(noise(16000), noise(30000))
    made = stem(SpecAugment())
    plain, real = stem()(values, mask)
    assert torch.equal(made.eval()(values, mask)[0], plain)
    made.train()
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(made(values, mask)[0])
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    kept = results[0] != 0
    assert torch.equal(results[0][kept], plain[kept])
    assert 0.1 < 1 - kept[real].float().mean() < 0.9


def test_masks_keep_within_their_bounds() -> None:
    chosen = SpecAugment(frequency_masks=1, frequency_width=10, time_masks=1, time_width=30, time_share=0.1)
    values, mask = padded(*[noise(64000)] * 40, *[noise(8000)] * 40)
    made = stem(chosen).train()
    torch.manual_seed(0)
    got, real = made(values, mask)
    times, bands = [], []
    for row, length in zip(got, real.sum(1).tolist(), strict=True):
        blank = row[:length] == 0
        time, band = blank.all(1), blank.all(0)
        assert torch.equal(blank, time[:, None] | band)  # whole stretches and whole bands, nothing else
        for line in (time, band):
            places = line.nonzero().flatten()
            assert not len(places) or int(places[-1] - places[0]) + 1 == len(places)
        times.append(int(time.sum()))
        bands.append(int(band.sum()))
    lengths = real.sum(1)
    assert (torch.tensor(times) <= (lengths * 0.1).clamp(max=30)).all()
    assert max(times[:40]) > 25
    assert max(bands) == 10
    assert min(bands) == 0
    assert len(set(bands)) > 5  # each row has its own


def test_only_mel_bands_are_masked_by_frequency() -> None:
    chosen = SpecAugment(time_masks=0)
    values, mask = padded(noise(16000))
    made = stem(chosen, features="mfcc").train()
    assert torch.equal(made(values, mask)[0], made.eval()(values, mask)[0])
