"""The audio column: every format, rates and channels, damaged and hostile files, statistics, and its augmentation."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhixing.columns.audio import Audio
from zhixing.columns.augment_audio import AUDIO_AUGMENTS, AudioAugment
from zhixing.columns.column import Ragged, Tensorized
from zhixing.columns.sound import looks_like_sound
from zhixing.columns.spectrum import SpecAugment
from zhixing.errors import DataError, UsageError
from zhixing.randomness import uniform_rows
from zhixing.settings import settings_of

FORMATS = ["WAV", "FLAC", "OGG", "MP3", "AIFF", "AU", "CAF", "W64"]


def voice(seconds: float = 0.5, rate: int = 16000, seed: int = 0) -> np.ndarray:
    """Some tones under a slow swell."""
    time = np.arange(round(seconds * rate)) / rate
    amounts = np.random.default_rng(seed).uniform(0.1, 0.2, 4)
    tones = sum(a * np.sin(2 * np.pi * f * time) for a, f in zip(amounts, (210, 450, 900, 1700), strict=True))
    return (tones * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * time))).astype(np.float32)


def encoded(wave: np.ndarray, rate: int = 16000, form: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def column(**chosen: object) -> Audio:
    return Audio(**{"longest": 2.0, **chosen})


def read(made: Audio, *cells: object, kind: pa.DataType | None = None) -> Tensorized:
    return made.tensorize(pa.array(cells, kind), Path)


def only(made: Audio, cell: object) -> np.ndarray:
    done = read(made, cell)
    assert done.findings == []
    assert done.present.tolist() == [True]
    assert done.values.dtype == np.int16
    assert done.lengths.tolist() == [len(done.values)]
    return done.values


def reason(made: Audio, cell: object, kind: str = "broken", of: pa.DataType | None = None) -> str:
    done = read(made, cell, kind=of)
    assert [finding.kind for finding in done.findings] == [kind]
    assert done.present.tolist() == [kind == "suspect"]
    assert (done.lengths > 0).tolist() == done.present.tolist()
    return done.findings[0].reason


# --- reading


def test_sixteen_bits_come_back_as_they_are() -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    for form in ("WAV", "FLAC", "AIFF"):
        np.testing.assert_array_equal(only(column(), encoded(samples, form=form)), samples)
    np.testing.assert_array_equal(only(column(), (samples / np.float32(32768)).tolist()), samples)
    np.testing.assert_array_equal(only(column(), samples.tolist()), samples)


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_from_bytes_and_from_a_file(form, tmp_path) -> None:
    wave = voice()
    content = encoded(wave, form=form)
    got = only(column(), content)
    np.testing.assert_allclose(got / 32768, wave, atol=0.05)
    assert np.corrcoef(got, wave)[0, 1] > 0.99
    (tmp_path / f"a.{form.lower()}").write_bytes(content)
    done = column().tensorize(pa.array([f"a.{form.lower()}"]), lambda cell: tmp_path / cell)
    np.testing.assert_array_equal(done.values, got)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
def test_another_rate_is_resampled(rate) -> None:
    wave = voice(rate=rate)
    got = only(column(), encoded(wave, rate, subtype="FLOAT"))
    want = soxr.resample(wave, rate, 16000)
    assert len(got) == pytest.approx(8000, abs=1)
    np.testing.assert_allclose(got, want * 32768, atol=0.51)
    np.testing.assert_allclose(got[500:-500] / 32768, voice()[500 : len(got) - 500], atol=2e-3)


def test_channels_are_mixed() -> None:
    left, right = voice(seed=1), voice(seed=2)
    got = only(column(), encoded(np.stack([left, right], 1), subtype="FLOAT"))
    np.testing.assert_allclose(got, (left + right) / 2 * 32768, atol=0.51)
    many = np.repeat(voice(2.0)[:, None], 40, 1)  # decoded in several blocks
    np.testing.assert_allclose(only(column(), encoded(many, subtype="FLOAT")), many[:, 0] * 32768, atol=0.51)


def test_cells_of_every_kind_are_the_same_sound(tmp_path) -> None:
    wave = voice()
    content = encoded(wave)
    (tmp_path / "a.wav").write_bytes(content)
    path = str(tmp_path / "a.wav")
    want = only(column(), content)
    for cell in (path, {"bytes": content, "path": None}, {"bytes": content, "path": "gone.wav"}):
        np.testing.assert_array_equal(only(column(), cell), want)
    np.testing.assert_array_equal(only(column(), {"bytes": None, "path": path}), want)
    np.testing.assert_array_equal(only(column(), (want / 32768).tolist()), want)
    fixed = pa.FixedShapeTensorArray.from_numpy_ndarray(np.stack([want, want]) / np.float32(32768))
    done = column().tensorize(fixed, Path)
    np.testing.assert_array_equal(done.values, np.concatenate([want, want]))
    assert column().place(path, Path) == column().place({"bytes": None, "path": path}, Path) == path
    assert column().place(content, Path) is None


def test_what_is_too_loud_is_cut_off_and_not_turned_over() -> None:
    loud = voice() * 20
    got = only(column(), encoded(loud, subtype="FLOAT"))
    np.testing.assert_array_equal(got[loud > 1], 32767)
    np.testing.assert_array_equal(got[loud < -1], -32768)


def test_rows_lie_behind_each_other_and_broken_ones_are_empty() -> None:
    a, b = voice(0.3), voice(0.5, seed=1)
    done = read(column(), encoded(a), None, encoded(b), b"nothing of a sound")
    assert done.lengths.tolist() == [4800, 0, 8000, 0]
    assert done.present.tolist() == [True, False, True, False]
    assert [finding.index for finding in done.findings] == [1, 3]
    np.testing.assert_allclose(done.values / 32768, np.concatenate([a, b]), atol=1e-4)
    none = column().tensorize(pa.array([], pa.binary()), Path)
    assert none.values.shape == (0,)
    assert none.values.dtype == np.int16


# --- what is wrong with a cell


def test_every_fault_is_told_in_words(tmp_path) -> None:
    made = column(max_seconds=3)
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("no sound at all")
    (tmp_path / "head.raw").write_bytes(bytes(100))
    assert "the file is missing" in reason(made, str(tmp_path / "gone.wav"))
    assert "a folder" in reason(made, str(tmp_path))
    assert reason(made, str(tmp_path / "empty.wav")) == "the file is empty"
    assert reason(made, str(tmp_path / "text.wav")) == "not a sound in any known format"
    assert reason(made, str(tmp_path / "head.raw")) == "not a sound in any known format"
    assert reason(made, "") == "the cell is empty"
    assert reason(made, None, of=pa.binary()) == "the cell is empty"
    assert reason(made, {"bytes": None, "path": None}, of=pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    assert "no bytes" in reason(made, b"")
    assert "no samples" in reason(made, encoded(np.zeros(0, np.float32)))
    assert "no samples" in reason(made, [], of=pa.list_(pa.float32()))
    assert reason(made, encoded(voice(0.02))) == "20 ms long, shorter than one window of 25 ms"
    assert "sample 7 is not a finite" in reason(made, [*voice()[:7].tolist(), float("nan"), 0.0])
    assert "not a finite" in reason(made, [0.0] * 500 + [float("inf")])
    assert "not a finite" in reason(made, [0.0, None, 0.5])
    assert "not a finite" in reason(made, encoded(np.array([0, np.nan] * 400, np.float32), subtype="FLOAT"))
    assert "outside the -32768" in reason(made, [40000] * 800)
    assert "cannot be decoded" in reason(made, encoded(voice(), form="FLAC")[:4000])
    assert "not samples" in reason(made, ["a", "b"])
    done = made.tensorize(pa.array(["a.wav"]), lambda cell: (_ for _ in ()).throw(DataError("no such thing")))
    assert done.findings[0].reason == "no such thing"


def test_a_file_that_may_not_be_read_and_too_many_open_ones(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(voice()))

    def refuse(number: int) -> None:
        def no(*given: object, **named: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(Path, "open", no)

    refuse(errno.EACCES)
    assert "permission denied" in reason(column(), str(path))
    refuse(errno.EMFILE)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        read(column(), str(path))


def test_silence_is_kept_and_told_of() -> None:
    for level in (0.0, 0.25):
        assert reason(column(), [level] * 800, "suspect") == "silence: all samples are equal"


def test_samples_far_outside_are_told_of() -> None:
    assert "cut off at -1 and 1" in reason(column(), (voice() * 1000).astype(float).tolist(), "suspect")


def test_a_long_clip_is_cut_and_both_lengths_are_said() -> None:
    wave = voice(3.0, rate=44100)
    done = read(column(), encoded(wave, 44100, subtype="FLOAT"))
    assert [(f.reason, f.kind) for f in done.findings] == [("3.00 s long, cut to the first 2.00 s", "suspect")]
    whole = only(column(longest=5.0), encoded(wave, 44100, subtype="FLOAT"))
    np.testing.assert_allclose(done.values, whole[:32000], atol=1)  # the resampling does not feel the cut
    assert "3.00 s long, cut" in reason(column(), wave[: 3 * 16000].tolist(), "suspect")


def test_what_ends_before_its_head_says_is_told_of() -> None:
    assert "of the 3.00 s that its head states" in reason(
        column(longest=5.0), encoded(voice(3.0), form="MP3")[:6000], "suspect"
    )


def test_a_bomb_is_refused_before_it_is_decoded(monkeypatch) -> None:
    made = column(max_seconds=60)
    content = bytearray(encoded(np.zeros(2_000_000, np.float32), form="FLAC"))
    assert len(content) < 20_000
    decoded = []
    monkeypatch.setattr("zhixing.columns.sound.decode", lambda *given: decoded.append(given))
    assert reason(made, bytes(content)) == "125.0 s long, more than 60 s (a decompression bomb?)"
    # STREAMINFO: 20 bits of rate, 3 of channels, 5 of depth, 36 of samples, from byte 18 of the file on
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    assert "decompression bomb" in reason(made, bytes(content))
    assert "decompression bomb" in reason(made, [0.5] * (61 * 16000))
    assert not decoded


def test_a_rate_that_no_sound_has_is_refused() -> None:
    content = bytearray(encoded(voice()))
    content[24:28] = (2_000_000_000).to_bytes(4, "little")
    assert "samples a second" in reason(column(), bytes(content))


def test_memory_follows_what_is_there_and_not_the_head() -> None:
    content = bytearray(encoded(voice(), form="FLAC"))
    content[21] |= 0x01  # 2^32 samples more, which would be 74 hours
    done = read(column(max_seconds=10**9, longest=1e6), bytes(content))
    assert done.findings[0].kind in ("suspect", "broken")
    assert len(done.values) <= 8000


@settings(max_examples=60, deadline=None)
@given(form=st.sampled_from(["WAV", "FLAC", "OGG", "AIFF"]), data=st.data())
def test_damaged_bytes_never_raise(form, data) -> None:
    content = bytearray(encoded(voice(0.1), form=form))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, min(len(content) - 1, 400)))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    done = read(column(), bytes(content))
    assert done.lengths.sum() == len(done.values) <= 32000
    assert done.present.tolist() == (done.lengths > 0).tolist()
    assert done.present.all() or [f.kind for f in done.findings] == ["broken"]


# --- what is learned


def test_the_longest_is_that_of_the_training_clips_thirty_seconds_at_most() -> None:
    made = Audio()
    made.fit(pa.chunked_array([[encoded(voice(0.5)), b"broken"], [encoded(voice(0.7, 44100), 44100), None]]), Path)
    assert made.longest == pytest.approx(0.7, abs=1e-4)
    assert made.spec().shape == (1 + (made.most - 400) // 160, 80)
    assert read(made, encoded(voice(0.7, 44100), 44100)).findings == []
    made = Audio(rate=1000)
    made.fit(pa.chunked_array([[[0.0] * 31000, [0.0] * 10]]), Path)
    assert made.longest == 30
    with pytest.raises(DataError, match="no training row holds a sound"):
        Audio().fit(pa.chunked_array([[b"broken", None]]), Path)
    set_by_hand = Audio(longest=1.5)
    set_by_hand.fit(pa.chunked_array([[b"broken"]]), Path)
    assert set_by_hand.longest == 1.5


def stored(made: Audio, waves: list[np.ndarray]) -> Ragged:
    done = read(made, *[wave.tolist() for wave in waves])
    return Ragged(torch.from_numpy(done.values), np.concatenate([[0], np.cumsum(done.lengths)]))


def as_batch(clips: Ragged, rows: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.from_numpy(np.diff(clips.offsets)[rows])
    values = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int16)
    for place, row in enumerate(rows):
        values[place, : lengths[place]] = clips.row(row)
    return values, torch.arange(values.shape[1]) < lengths[:, None]


@pytest.mark.parametrize("features", ["log_mel", "mfcc", "wave"])
def test_training_rows_have_mean_zero_and_deviation_one(features, monkeypatch) -> None:
    monkeypatch.setattr("zhixing.columns.audio.PIECE", 7)  # clips are worked through in several pieces
    made = column(features=features)
    clips = stored(made, [voice(0.2 + 0.05 * k, seed=k) for k in range(8)])
    made.calibrate(clips, np.array([4, 0, 2]))
    got, real = made.stem()(*as_batch(clips, [0, 2, 4]))
    assert real is not None
    flat = got[real].double()
    flat = flat.reshape(-1, 1) if features == "wave" else flat
    torch.testing.assert_close(flat.mean(0), torch.zeros(flat.shape[1]).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(0, correction=0), torch.ones(flat.shape[1]).double(), atol=1e-3, rtol=0)


def test_statistics_are_decided_by_the_training_rows_alone(monkeypatch) -> None:
    monkeypatch.setattr("zhixing.columns.audio.CALIBRATED", 3)
    made, clips = column(), None
    waves = [voice(0.2, seed=k) for k in range(8)]
    clips = stored(made, waves)
    made.calibrate(clips, np.array([1, 2, 3, 5, 6]))
    first = (made.mean, made.std)
    other = stored(made, [voice(0.3, seed=k + 90) if k in (0, 4, 7) else wave for k, wave in enumerate(waves)])
    made.calibrate(other, np.array([6, 5, 3, 2, 1]))
    assert (made.mean, made.std) == first
    made.calibrate(clips, np.array([0, 1, 2, 3, 5, 6, 7]))
    assert made.mean != first[0]


def test_nothing_to_learn_from_and_what_never_changes() -> None:
    made = column()
    clips = stored(made, [voice(0.2), np.zeros(4000)])
    made.calibrate(clips, np.array([1]))
    assert made.std == [1.0] * 80
    assert not made.stem()(*as_batch(clips, [1]))[0].any()
    made.calibrate(Ragged(clips.values[:0], np.zeros(3, np.int64)), np.array([0, 1]))
    assert (made.mean, made.std) == ([0.0] * 80, [1.0] * 80)


def test_state_and_settings_come_back_through_json() -> None:
    made = Audio(features="mfcc", spec_augment=SpecAugment(time_masks=3), rate=8000)
    made.fit(pa.chunked_array([[encoded(voice(0.4))]]), Path)
    clips = stored(made, [voice(0.3, 8000)])
    made.calibrate(clips, np.array([0]))
    kept = json.loads(json.dumps({"settings": made.settings(), "state": made.state()}))
    model = settings_of(Audio, name="audio", tag="type")
    again = Audio(**model(**kept["settings"]).keywords())
    again.load_state(kept["state"])
    assert again.settings() == made.settings()
    assert again.stored_as() == made.stored_as()
    assert again.spec() == made.spec()
    batch = as_batch(clips, [0])
    assert torch.equal(again.stem().eval()(*batch)[0], made.stem().eval()(*batch)[0])
    assert again.summary() == made.summary()


def test_only_what_changes_the_samples_makes_them_anew() -> None:
    base = column().stored_as()
    for same in ({"features": "mfcc"}, {"bands": 40}, {"hop": 20.0}, {"spec_augment": True}):
        assert column(**same).stored_as() == base
    for other in ({"rate": 8000}, {"longest": 1.0}, {"window": 20.0}, {"max_seconds": 9.0}):
        assert column(**other).stored_as() != base


def test_what_a_batch_gives_is_what_the_spec_says() -> None:
    for features in ("log_mel", "mfcc", "wave"):
        made = column(features=features, longest=0.5)
        values, mask = made.blank(3)
        got, real = made.stem()(values, mask)
        assert values.dtype == torch.int16
        assert real is not None
        assert tuple(got.shape[1:]) == made.spec().shape
        assert real.all()
    assert made.restore(values)[0].dtype == np.float32
    assert made.restore(torch.tensor([[16384, -32768]], dtype=torch.int16))[0].tolist() == [0.5, -1.0]
    assert made.show(values[0]) == {"text": "0.50 s"}
    assert 1 <= made.chunk <= 128
    assert Audio(longest=600.0).chunk == 1


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(UsageError, match="90 coefficients of 80 bands"):
        Audio(features="mfcc", coefficients=90)
    with pytest.raises(UsageError, match="shorter than a window"):
        Audio(longest=0.01)
    with pytest.raises(UsageError, match="less than two samples"):
        Audio(rate=1000, window=1.0)


def test_claims(tmp_path) -> None:
    content = encoded(voice(0.1))

    def claim(*cells: object, kind: pa.DataType | None = None) -> float:
        found = Audio.claims(pa.chunked_array([pa.array(cells, kind)]), "sound")
        return found.score if found else 0

    assert claim("a/b.WAV", "c.mp3", None, "d.flac") == 0.9
    assert claim(*[encoded(voice(0.1), form=form) for form in FORMATS if form != "W64"]) == 0.9
    assert claim({"bytes": content, "path": "x"}, {"bytes": None, "path": "a.ogg"}) == 0.95
    assert claim("a.wav", "b.txt", "c.jpg") == 0
    assert claim(b"\x89PNG\r\n\x1a\n----", b"\xff\xd8\xff\xe0----") == 0
    assert claim({"bytes": b"\x89PNG", "path": "a.png"}) == 0
    assert claim([0.5, 0.25]) == 0
    assert claim(None, None, kind=pa.string()) == 0
    assert not looks_like_sound("Text".encode("utf-16"))


def test_a_changed_file_is_noticed(tmp_path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(voice()))
    cells = pa.array(["a.wav", "gone.wav", None])
    before = column().files(cells, lambda cell: tmp_path / cell)
    assert column().files(cells, lambda cell: tmp_path / cell) == before
    path.write_bytes(encoded(voice(0.6)))
    assert column().files(cells, lambda cell: tmp_path / cell) != before
    structs = pa.array([{"bytes": None, "path": "a.wav"}])
    assert column().files(structs, lambda cell: tmp_path / cell) != b"missing"
    assert column().files(pa.array([b"x"]), Path) == b""


# --- augmentation


def batch(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    values = torch.from_numpy(np.random.default_rng(seed).normal(0, 2000, (len(lengths), max(lengths))))
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return values.to(torch.int16), mask


EVERYTHING = {"speed": 0.2, "shift": 0.1, "gain": 6.0, "noise": (5.0, 20.0)}


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_a_row_is_changed_alike_whatever_lies_beside_it(colour) -> None:
    augment = AudioAugment(**EVERYTHING, colour=colour)
    values, mask = batch(3000, 5000, 1000)
    rows = torch.tensor([7, 3, 12])
    got, real = augment(values, mask, rows, 1, 5)
    alone, alone_real = augment(values[:1, :3000], mask[:1, :3000], rows[:1], 1, 5)
    length = int(real[0].sum())
    assert length == int(alone_real.sum())
    torch.testing.assert_close(got[0, :length], alone[0, :length], atol=0.05, rtol=1e-4)
    assert got.dtype == torch.float32
    assert not got[~real].any()
    floats, _ = augment(values.float(), mask, rows, 1, 5)
    assert torch.equal(floats, got)
    junk = values.masked_fill(~mask, 31000)
    assert torch.equal(augment(junk, mask, rows, 1, 5)[0], got)


def test_it_is_a_function_of_seed_step_and_row() -> None:
    augment = AudioAugment(**EVERYTHING)
    values, mask = batch(2000, 2000)
    values[1] = values[0]
    rows = torch.tensor([4, 9])
    got, _ = augment(values, mask, rows, 0, 0)
    assert torch.equal(got, augment(values, mask, rows, 0, 0)[0])
    assert not torch.equal(got[0], got[1])
    for seed, step in ((1, 0), (0, 1)):
        other, _ = augment(values, mask, rows, seed, step)
        assert other.shape != got.shape or not torch.equal(other, got)


@pytest.mark.parametrize("colour", ["white", "pink"])
def test_noise_has_the_stated_ratio(colour) -> None:
    values, mask = batch(16000, 12000, 14000)
    got, _ = AudioAugment(noise=(10, 10), colour=colour)(values, mask, torch.arange(3), 0, 0)
    added = (got - values)[mask]
    assert not (got - values.masked_fill(~mask, 0))[~mask].any()
    ratio = 10 * torch.log10(values[mask].double().square().mean() / added.double().square().mean())
    assert ratio.item() == pytest.approx(10, abs=1.5 if colour == "pink" else 0.2)


@pytest.mark.parametrize(("colour", "slope"), [("white", 0.0), ("pink", -1.0)])
def test_noise_has_its_colour(colour, slope) -> None:
    hiss = AudioAugment(noise=(0, 0), colour=colour).hiss(torch.arange(64), 8192, 0, 0).double()
    assert hiss.var().item() == pytest.approx(1, abs=0.15)
    spectrum = torch.fft.rfft(hiss * torch.hann_window(8192).double()).abs().square().mean(0)
    bins = torch.arange(16, 2048)
    fitted = np.polyfit(bins.double().log().numpy(), spectrum[bins].log().numpy(), 1, w=1 / np.sqrt(bins.numpy()))
    assert fitted[0] == pytest.approx(slope, abs=0.15)


def test_speed_changes_length_and_pitch() -> None:
    time = torch.arange(8000) / 16000
    values = (10000 * torch.sin(2 * torch.pi * 500 * time)).to(torch.int16).repeat(20, 1)
    mask = torch.ones_like(values, dtype=torch.bool)
    got, real = AudioAugment(speed=0.2)(values, mask, torch.arange(20), 0, 0)
    lengths = real.sum(1)
    factor = 1 + 0.2 * (2 * uniform_rows(torch.arange(20), 1, 0, 0, "sound")[:, 0].double() - 1)
    assert factor.min() < 0.9 < 1.1 < factor.max()
    assert lengths.tolist() == [int(7999 / speed) + 1 for speed in factor.tolist()]
    for row, length, speed in zip(got, lengths.tolist(), factor.tolist(), strict=True):
        place = torch.arange(length).double() * speed
        want = 10000 * torch.sin(2 * torch.pi * 500 * place / 16000)
        torch.testing.assert_close(row[:length].double(), want, atol=60, rtol=0)  # a straight line between samples


def test_gain_and_shift() -> None:
    values, mask = batch(4000, 3000, 2000)
    got, real = AudioAugment(gain=6)(values, mask, torch.arange(3), 0, 0)
    assert torch.equal(real, mask)
    for row, before, there in zip(got, values.float(), mask, strict=True):
        share = row[there] / before[there].where(before[there] != 0, 1.0)
        share = share[before[there] != 0]
        torch.testing.assert_close(share, share[:1].expand_as(share))
        assert 10 ** (-6 / 20) < share[0] < 10 ** (6 / 20)
        assert share[0] != 1
    got, real = AudioAugment(shift=0.2)(values, mask, torch.arange(3), 0, 0)
    assert torch.equal(real, mask)
    shifts = []
    for row, before, length in zip(got, values.float(), (4000, 3000, 2000), strict=True):
        fits = [
            by
            for by in range(-length // 5, length // 5 + 1)
            if torch.equal(row[max(by, 0) : length + min(by, 0)], before[max(-by, 0) : length - max(by, 0)])
        ]
        assert len(fits) == 1
        shifts.append(fits[0])
        outside = row[: shifts[-1]] if shifts[-1] > 0 else row[length + shifts[-1] :]
        assert not outside.any()
    assert len(set(shifts)) == 3


def test_rows_without_a_sample_stay_so() -> None:
    augment = AudioAugment(**EVERYTHING)
    values, mask = batch(500, 500)
    mask[1] = False
    got, real = augment(values, mask, torch.arange(2), 0, 0)
    assert not real[1].any()
    assert not got[1].any()
    assert got.isfinite().all()
    empty = torch.zeros(2, 0, dtype=torch.int16)
    assert augment(empty, empty.bool(), torch.arange(2), 0, 0)[0].shape == (2, 0)


def test_what_is_slowed_down_still_fits_the_spec() -> None:
    made = column(longest=0.5)
    values, mask = made.blank(8)
    values = values + batch(values.shape[1])[0]
    got, real = made.stem()(*AudioAugment(speed=0.3)(values, mask, torch.arange(8), 0, 0))
    assert real is not None
    assert got.shape[1] <= made.spec().shape[0]
    assert real.any(1).all()


@pytest.mark.parametrize("name", ["none", "light", "standard"])
def test_named_augmentations(name) -> None:
    augment = AUDIO_AUGMENTS[name]()
    assert augment.active == (name != "none")
    assert augment.mixes == []
    values, mask = batch(1000, 800)
    got, real = augment(values, mask, torch.arange(2), 0, 0)
    assert got.shape == real.shape
    assert torch.equal(got, values) == (name == "none")


def test_settings_of_the_augmentation() -> None:
    model = settings_of(AUDIO_AUGMENTS["custom"], name="custom")
    made = AudioAugment(**model(noise=[5, 20]).keywords())
    assert made.noise == (5.0, 20.0)
    with pytest.raises(UsageError, match="Swap them"):
        AudioAugment(noise=(20, 5))
