"""Resize filters against PIL (float channels), and against torch's and torch-fidelity's (committed
values).
"""

import json
import pathlib

import numpy as np
import pytest
from PIL import Image

from t2i_jax.metrics.resize import FILTERS, resize

EXPECTED = json.loads((pathlib.Path(__file__).parent / 'oracles' / 'networks.json').read_text())[
    'resize'
]


def noise(h, w, n=1, c=3):
    return np.random.default_rng(1).integers(0, 256, (n, h, w, c), np.uint8)


def pil(image, size):
    """PIL's bicubic of each channel as floats, clipped."""
    return np.stack(
        [
            np.asarray(
                Image.fromarray(image[..., c].astype(np.float32)).resize(
                    (size, size), Image.Resampling.BICUBIC
                )
            )
            for c in range(image.shape[-1])
        ],
        -1,
    ).clip(0, 255)


@pytest.mark.parametrize(
    'h, w, size',
    [
        (64, 80, 299),
        (256, 256, 299),
        (512, 400, 299),
        (64, 64, 224),
        (300, 298, 299),
        (299, 299, 299),
    ],
)
def test_pil_bicubic(h, w, size):
    image = noise(h, w)
    assert np.abs(np.asarray(resize(image, size))[0] - pil(image[0], size)).max() < 5e-4


@pytest.mark.parametrize('name', EXPECTED)
@pytest.mark.parametrize('size', ['5', '12'])
def test_bilinear_has_the_committed_values_of_the_oracle(name, size):
    found = np.asarray(resize(noise(9, 7)[..., :1], int(size), name))
    assert found.ravel() == pytest.approx(np.array(EXPECTED[name][size]), abs=2e-4)


def test_bilinear_by_hand():
    row = np.array([[[[0], [100], [200]]] * 3], np.uint8)
    assert np.asarray(resize(row, 6, 'tf1_bilinear'))[0, 0, :, 0] == pytest.approx(
        [0, 50, 100, 150, 200, 200]
    )
    assert np.asarray(resize(row, 6, 'torch_bilinear'))[0, 0, :, 0] == pytest.approx(
        [0, 25, 75, 125, 175, 200]
    )


@pytest.mark.parametrize('name', FILTERS)
def test_a_plain_image_stays_plain_and_one_of_the_right_size_as_it_is(name):
    plain = np.full((2, 40, 30, 3), 77, np.uint8)
    resized = resize(plain, 25, name)
    assert resized.shape == (2, 25, 25, 3) and resized.dtype == np.float32
    np.testing.assert_allclose(resized, 77, rtol=1e-6)
    np.testing.assert_array_equal(resize(noise(25, 25), 25, name), noise(25, 25))


def test_clean_fid():
    make = pytest.importorskip('cleanfid.resize').make_resizer
    image = noise(100, 64)[0]
    oracle = make('PIL', False, 'bicubic', (299, 299))(image)
    assert np.abs(np.asarray(resize(image[None], 299))[0] - oracle).max() < 5e-4


def test_wrong_input_is_named():
    with pytest.raises(
        ValueError,
        match="no resize filter 'lanczos'; there are pil_bicubic, tf1_bilinear, torch_bilinear",
    ):
        resize(noise(4, 4), 8, 'lanczos')
    with pytest.raises(ValueError, match='uint8 images n h w c, not float64'):
        resize(noise(4, 4) / 255, 8)
