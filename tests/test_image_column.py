"""The image column: every mode and turn against Pillow, arrays of any layout, exact statistics, damaged files."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps

from zhixing.columns.image import Image, Standardise
from zhixing.columns.picture import moments, read_picture, resized, sums_of, to_mode
from zhixing.data.source import open_source
from zhixing.errors import DataError

sys.path.insert(0, str(Path(__file__).parents[1]))
from benchmarks.prepare_memory import compare


def smooth(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    """A picture without hard edges, as photographs are."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, channels), np.uint8)
    planes = [
        Pillow.fromarray(coarse[:, :, k]).resize((width, height), Pillow.Resampling.BICUBIC) for k in range(channels)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=2)


def saved(picture: Pillow.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def column(**settings_of: object) -> Image:
    return Image(**{"size": 8, "channels": 3, **settings_of})


def only(made: Image, cell: object) -> np.ndarray:
    done = made.tensorize(pa.array([cell]), Path)
    assert done.findings == []
    assert done.present.tolist() == [True]
    return done.values[0]


def arrays_of(array: np.ndarray) -> pa.Array:
    return pa.FixedShapeTensorArray.from_numpy_ndarray(array.copy())


# --- turns, modes, sizes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_exif_turns_are_pillows_transpose(orientation, fit, form) -> None:
    picture = Pillow.fromarray(smooth(40, 56))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    content = saved(picture, form, exif=exif)
    upright = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
    raw = Pillow.open(io.BytesIO(content))
    turned = raw.transpose(Pillow.Transpose(upright[orientation])) if orientation > 1 else raw.copy()
    want = np.asarray(resized(turned.convert("RGB"), (16, 20), fit)).transpose(2, 0, 1)
    got = only(column(size=(20, 16), fit=fit), content)
    np.testing.assert_allclose(got.astype(int), want.astype(int), atol=0)


def test_a_turned_picture_gives_the_size_it_has_upright() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    made = Image()
    made.fit(pa.chunked_array([[saved(Pillow.new("RGB", (30, 20)), exif=exif)]]), Path)
    assert made.size == (30, 20)


GREY_RAMP = np.tile(np.linspace(0, 255, 8).astype(np.uint8), (8, 1))


@pytest.mark.parametrize(
    ("picture", "tolerance"),
    [
        (Pillow.fromarray(GREY_RAMP), 0),
        (Pillow.fromarray(GREY_RAMP).convert("RGB"), 0),
        (Pillow.fromarray(GREY_RAMP).convert("P"), 0),
        (Pillow.fromarray(GREY_RAMP).convert("LA"), 0),
        (Pillow.fromarray(GREY_RAMP).convert("RGBA"), 0),
        (Pillow.fromarray(GREY_RAMP).convert("RGB").quantize(64), 4),
        (Pillow.fromarray(GREY_RAMP.astype(np.uint16) * 257), 0),
    ],
    ids=lambda value: value.mode if isinstance(value, Pillow.Image) else "",
)
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_of_png_are_the_same_picture(picture, tolerance, channels) -> None:
    got = only(column(channels=channels), saved(picture)).astype(int)
    assert got.shape == (channels, 8, 8)
    np.testing.assert_allclose(got, np.broadcast_to(GREY_RAMP, got.shape), atol=tolerance)


@pytest.mark.parametrize("big", ["<", ">"])
def test_sixteen_bits_are_scaled_not_clipped(big) -> None:
    deep = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    if big == ">":
        head = b"P5 8 8 65535\n"  # PGM stores the high byte first
        got = only(column(channels=1), head + deep.astype(">u2").tobytes())
    else:
        got = only(column(channels=1), saved(Pillow.fromarray(deep), "TIFF"))
    np.testing.assert_array_equal(got[0], np.rint(deep / 257).astype(np.uint8))


def test_floats_of_0_to_1_and_of_0_to_255() -> None:
    ramp = (GREY_RAMP / 255).astype(np.float32)
    for deep in (ramp, ramp * 255):
        got = only(column(channels=1), saved(Pillow.fromarray(deep), "TIFF"))
        np.testing.assert_allclose(got[0].astype(int), GREY_RAMP, atol=1)


def test_cmyk_and_one_bit() -> None:
    ink = Pillow.fromarray(GREY_RAMP).convert("RGB").convert("CMYK")
    got = only(column(), saved(ink, "JPEG", quality=100)).astype(int)
    np.testing.assert_allclose(got, np.broadcast_to(GREY_RAMP, got.shape), atol=6)
    bits = Pillow.fromarray(GREY_RAMP > 100)
    assert bits.mode == "1"
    np.testing.assert_array_equal(only(column(channels=1), saved(bits))[0], np.where(GREY_RAMP > 100, 255, 0))


def test_what_is_transparent_is_white() -> None:
    rgba = np.zeros((8, 8, 4), np.uint8)
    rgba[:, 4:, 3] = 255
    half = np.zeros((8, 8, 4), np.uint8)
    half[..., 3] = 128
    palette = Pillow.fromarray(np.repeat([[0, 1]], 8, 0).repeat(4, 1).astype(np.uint8), "L").convert("P")
    palette.putpalette([9, 9, 9, 0, 0, 0])
    want = np.repeat(np.where(np.arange(8) < 4, 255, 0)[None], 8, 0)
    assert (only(column(), saved(Pillow.fromarray(rgba)))[1] == want).all()
    assert (only(column(), saved(palette, transparency=0))[2] == want).all()
    assert (only(column(), saved(Pillow.fromarray(half)))[0] == 127).all()
    got = column().tensorize(arrays_of(rgba[None]), Path)
    assert (got.values[0] == want).all()


def test_crop_stretch_pad() -> None:
    bands = np.zeros((8, 24), np.uint8)
    bands[:, 8:16], bands[:, 16:] = 100, 200
    content = saved(Pillow.fromarray(bands))
    assert (only(column(channels=1), content) == 100).all()
    stretched = only(column(channels=1, fit="stretch"), content)[0]
    assert (stretched[:, 0] < 10).all()
    assert (abs(stretched[:, 3] - 100.0) < 10).all()
    assert (abs(stretched[:, 7] - 200.0) < 10).all()
    padded = only(column(size=24, channels=1, fit="pad"), content)[0]
    assert (padded[:8] == 0).all()
    assert (padded[16:] == 0).all()
    np.testing.assert_array_equal(padded[8:16], bands)


@pytest.mark.parametrize("fit", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (3, 7)])
def test_pictures_of_extreme_shape(fit, size) -> None:
    assert (only(column(fit=fit), saved(Pillow.new("RGB", size, "white"))).max(0) == 255).any()


@pytest.mark.parametrize(
    ("size", "fit"), [((32, 32), "crop"), ((24, 64), "crop"), ((32, 32), "stretch"), ((32, 32), "pad")]
)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_is_close_to_the_full(size, fit, channels, orientation) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    content = saved(Pillow.fromarray(smooth(500, 700)), "JPEG", quality=95, exif=exif)
    whole = Pillow.open(io.BytesIO(content))
    whole.load()
    mode = "L" if channels == 1 else "RGB"
    want = np.asarray(resized(to_mode(ImageOps.exif_transpose(whole), mode), size[::-1], fit)).astype(int)
    reduced = Pillow.open(io.BytesIO(content))
    got = read_picture(reduced, channels, size, fit).astype(int)
    assert reduced.size != (700, 500)
    got = got[0] if channels == 1 else got.transpose(1, 2, 0)
    assert np.abs(got - want).max() <= 6
    assert np.abs(got - want).mean() < 1


# --- arrays and objects


@pytest.mark.parametrize("layout", ["HW", "HWC", "CHW", "HW1", "1HW"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.uint16, np.float32, np.float64])
def test_arrays_of_any_layout_and_type(layout, dtype) -> None:
    colour = layout in ("HWC", "CHW")
    base = np.random.default_rng(1).integers(0, 256, (5, 3 if colour else 1, 8, 6), np.uint8)
    base[0, 0, 0, 0] = 255
    shaped = {"HW": base[:, 0], "1HW": base, "CHW": base}.get(layout, base.transpose(0, 2, 3, 1))
    for top in {np.uint16: (255, 65535), np.float32: (1, 255), np.float64: (1, 255)}.get(dtype, (255,)):
        cells = arrays_of((shaped.astype(np.float64) * (top / 255)).astype(dtype))
        made = Image()
        made.fit(pa.chunked_array([cells]), Path)
        assert (made.size, made.channels, made.top) == ((8, 6), 3 if colour else 1, top)
        done = made.tensorize(cells, Path)
        np.testing.assert_array_equal(done.values, base)
        np.testing.assert_array_equal(made.tensorize(cells[1:3], Path).values, base[1:3])


def test_the_range_of_arrays_is_learned_not_guessed_run_by_run() -> None:
    light, dark = np.full((2, 4, 4), 200.0), np.full((2, 4, 4), 1.0)
    made = Image()
    made.fit(pa.chunked_array([arrays_of(light), arrays_of(dark)]), Path)
    assert (made.tensorize(arrays_of(dark), Path).values == 1).all()


def test_arrays_out_of_range_or_missing_are_told_of() -> None:
    good = np.random.default_rng(0).random((6, 4, 4)).astype(np.float32)
    made = Image()
    made.fit(pa.chunked_array([arrays_of(good)]), Path)
    bad = good.copy()
    bad[1, 0, 0], bad[3, 2, 2], bad[4, 1, 1] = np.nan, 1.5, -0.1
    done = made.tensorize(arrays_of(bad), Path)
    assert [(f.index, f.reason) for f in done.findings] == [(i, "values outside 0 … 1") for i in (1, 3, 4)]
    assert done.present.tolist() == [True, False, True, False, False, True]
    assert not done.values[[1, 3, 4]].any()
    kind = arrays_of(good).type
    holes = pa.ExtensionArray.from_storage(kind, pa.array([[0.5] * 16, None, [1.0] * 16], kind.storage_type))
    done = made.tensorize(holes, Path)
    assert done.present.tolist() == [True, False, True]
    assert done.values[:, 0, 0, 0].tolist() == [128, 0, 255]


def test_arrays_that_are_no_pictures() -> None:
    cells = pa.chunked_array([arrays_of(np.zeros((2, 5, 6, 7)))])
    assert Image.claims(cells, "x") is None
    with pytest.raises(DataError, match=r"\(5, 6, 7\) are not pictures"):
        Image(size=8, channels=3).fit(cells, Path)


def test_arrays_are_brought_to_another_size() -> None:
    base = smooth(20, 30)
    done = column(size=(10, 15)).tensorize(arrays_of(base[None]), Path)
    want = Pillow.fromarray(base).resize((15, 10), Pillow.Resampling.BICUBIC)
    np.testing.assert_array_equal(done.values[0].transpose(1, 2, 0), np.asarray(want))


def test_bytes_and_paths_in_a_struct(tmp_path) -> None:
    content = saved(Pillow.new("RGB", (8, 8), "red"))
    (tmp_path / "a.png").write_bytes(content)
    cells = [
        {"bytes": content, "path": None},
        {"bytes": None, "path": "a.png"},
        {"bytes": None, "path": None},
        {"bytes": b"", "path": "none.png"},
    ]
    values = pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()}))
    made = column()
    done = made.tensorize(values, lambda cell: tmp_path / cell)
    assert done.present.tolist() == [True, True, False, False]
    assert "missing" in done.findings[1].reason
    assert (done.values[0] == done.values[1]).all()
    before = made.files(values, lambda cell: tmp_path / cell)
    (tmp_path / "a.png").write_bytes(content + b" ")
    assert made.files(values, lambda cell: tmp_path / cell) != before


def test_a_pillow_picture_handed_in_stays_as_it_is() -> None:
    content = saved(Pillow.fromarray(smooth(400, 400)), "JPEG", quality=95)
    mine = Pillow.open(io.BytesIO(content))
    made = column(size=16)
    pixels, remark = made.read(mine, Path)
    assert mine.size == (400, 400)
    mine.load()
    mine.getpixel((399, 399))
    assert remark == ""
    assert np.abs(pixels.astype(int) - only(made, content).astype(int)).max() <= 6
    flat = Pillow.new("RGBA", (20, 20), (255, 0, 0, 0)).convert("RGBa")
    assert (made.read(flat, Path)[0] == 255).all()


# --- what is wrong with files


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (saved(Pillow.fromarray(smooth(64, 64)), "JPEG")[:700], "truncated"),
        (saved(Pillow.fromarray(smooth(64, 64)))[:500], "cannot be decoded"),
        (b"", "no bytes"),
        (b"hello", "not a picture"),
        (saved(Pillow.new("1", (9000, 9000))), "decompression bomb"),
        (saved(Pillow.new("1", (20000, 10000))), "decompression bomb"),
        (None, "the cell is empty"),
        (saved(Pillow.fromarray(np.full((8, 8), -5, np.int32)), "TIFF"), "outside 0 … 65535"),
    ],
)
def test_bad_pictures_are_findings(content, reason) -> None:
    good = saved(Pillow.new("RGB", (8, 8), "white"))
    done = column().tensorize(pa.array([good, content, good], pa.binary()), Path)
    assert [(f.index, f.kind) for f in done.findings] == [(1, "broken")]
    assert reason in done.findings[0].reason
    assert done.present.tolist() == [True, False, True]
    assert not done.values[1].any()


def test_paths_that_lead_nowhere(tmp_path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    cells = [
        "none.png",
        "none.png/1.png",
        "pipe.png",
        "folder.png",
        "empty.png",
        "a\0b.png",
        "https://a.b/c.png",
        "",
        None,
        "x" * 300 + ".png",
        "../" * 5,
    ]
    table = open_source({"photo": cells})
    table.base = tmp_path
    done = column().tensorize(table["photo"].combine_chunks(), table.locate)
    assert [f.index for f in done.findings] == list(range(len(cells)))
    words = ["missing", "missing", "pipe", "a folder", "empty", "zero byte", "URL", "empty", "empty", "name too long"]
    words.append("a folder")
    for word, finding in zip(words, done.findings, strict=True):
        assert word in finding.reason
    assert column().place("none.png", table.locate) == str(tmp_path / "none.png")
    assert column().place("https://a.b/c.png", table.locate) is None


@pytest.mark.parametrize("kind", ["BMP", "PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("side", [8, 400])
def test_files_of_any_length_are_read_as_their_bytes_are(tmp_path, kind, side) -> None:
    content = saved(Pillow.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)), kind)
    assert (len(content) > 1 << 16) == (side == 400)
    (tmp_path / f"a.{kind.lower()}").write_bytes(content)
    one = column()
    read = one.tensorize(pa.array([str(tmp_path / f"a.{kind.lower()}")]), Path)
    assert read.findings == []
    np.testing.assert_array_equal(read.values, one.tensorize(pa.array([content], pa.binary()), Path).values)


FILES = [
    saved(Pillow.fromarray(smooth(24, 24)), "JPEG", exif=(lambda e: (e.__setitem__(0x0112, 6), e)[1])(Pillow.Exif())),
    saved(Pillow.fromarray(smooth(24, 24)).quantize(16), "GIF"),
    saved(Pillow.fromarray(smooth(24, 24)), "PNG"),
    saved(Pillow.fromarray(smooth(24, 24)), "TIFF"),
    saved(Pillow.fromarray(smooth(24, 24)), "BMP"),
    saved(Pillow.fromarray(smooth(24, 24)), "WEBP"),
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.sampled_from(FILES), st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8), st.floats(0, 1)
)
def test_no_damage_makes_it_raise(content, changes, cut) -> None:
    broken = bytearray(content)
    for place, value in changes:
        broken[int(place * min(len(broken), 400))] = value
    if cut < 0.3:
        del broken[int(cut / 0.3 * len(broken)) :]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = column().tensorize(pa.array([bytes(broken), FILES[2]], pa.binary()), Path)
    assert done.present[1]
    assert done.present[0] == (not any(f.index == 0 and f.kind == "broken" for f in done.findings))
    if not done.present[0]:
        assert not done.values[0].any()


def test_threads_get_the_same() -> None:
    cells = pa.array([saved(Pillow.fromarray(smooth(40, 40, seed=i)), "JPEG") for i in range(40)])
    made = column(size=16)
    want = made.tensorize(cells, Path).values
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: made.tensorize(cells, Path).values, range(24)))
    assert all((run == want).all() for run in runs)


# --- statistics and sizes


def test_mean_and_deviation_are_numpys_on_training_rows() -> None:
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (300, 3, 9, 7), np.uint8)
    pixels[:, 2] = 17
    train = np.sort(draw.permutation(300)[:200])
    made = column(size=(9, 7))
    for sums in (None, sums_of(pixels)):
        made.calibrate(torch.from_numpy(pixels), train, sums)
        chosen = pixels[train].astype(np.float64)
        np.testing.assert_allclose(made.mean, chosen.mean((0, 2, 3)), rtol=1e-14)
        np.testing.assert_allclose(made.std, [*chosen.std((0, 2, 3))[:2], 1.0], rtol=1e-12)
    before = made.state()
    pixels[np.setdiff1d(np.arange(300), train)] = 255
    made.calibrate(torch.from_numpy(pixels), train, sums_of(pixels))
    assert made.state() == before
    out, _ = made.stem()(torch.from_numpy(pixels[train]))
    assert out[:, :2].mean((0, 2, 3)).abs().max() < 1e-5
    assert (out[:, :2].std((0, 2, 3)) - 1).abs().max() < 1e-3
    assert not out[:, 2].any()


def test_moments_do_not_overflow() -> None:
    pixels = 10**9
    sums = np.array([[255 * pixels, 255**2 * pixels]] * 1000, np.int64)
    assert moments(sums, pixels) == ([255.0], [1.0])


@pytest.mark.parametrize(
    ("sizes", "channels", "want"),
    [
        ([(28, 28)] * 5, "L", (28, 28)),
        ([(100, 60)] * 5, "RGB", (60, 100)),
        ([(500, 400)] * 5, "RGB", (224, 224)),
        ([(64, 80), (100, 100), (90, 130)], "RGB", (80, 80)),
        ([(5, 9), (7, 9)], "L", (16, 16)),
    ],
)
def test_sizes_are_inferred(sizes, channels, want) -> None:
    cells = [saved(Pillow.new(channels, size)) for size in sizes]
    made = Image()
    made.fit(pa.chunked_array([[b"broken", None, *cells]]), Path)
    assert made.size == want
    assert made.channels == (1 if channels == "L" else 3)


def test_settings_and_state_come_back_through_json() -> None:
    made = Image()
    cells = pa.chunked_array([[saved(Pillow.fromarray(smooth(20, 30)))]])
    made.fit(cells, Path)
    done = made.tensorize(cells.chunk(0), Path)
    made.calibrate(torch.from_numpy(done.values), np.array([0]), done.sums)
    twin = Image(**json.loads(json.dumps(made.settings())))
    twin.load_state(json.loads(json.dumps(made.state())))
    assert (twin.state(), twin.settings()) == (made.state(), made.settings())
    assert (twin.tensorize(cells.chunk(0), Path).values == done.values).all()
    assert isinstance(twin.stem(), Standardise)
    restored = twin.restore(torch.from_numpy(done.values))[0]
    assert (np.asarray(restored).transpose(2, 0, 1) == done.values[0]).all()
    assert twin.show(torch.from_numpy(done.values[0]))["picture"].startswith("data:image/png;base64,")


def test_runs_are_short_where_pictures_are_large() -> None:
    assert column(size=16).chunk == 128
    for side in (224, 1024, 8192):
        made = column(size=side)
        assert made.chunk == 1 or made.chunk * 3 * side * side <= 4 << 20


def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    found = compare(1600, size=160)
    assert found["stored_bytes"] > 120e6
    assert found["growth_mb"] < 0.75 * found["stored_bytes"] / 2**20
    assert found["peak_rss_mb"] < 1000
    assert found["growth_mb"] - found["an_eighth_growth_mb"] < 30
