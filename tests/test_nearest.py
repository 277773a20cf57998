"""Drawn pictures next to the training pictures that are most like them."""

import json

import numpy as np

from t2i_jax.explore import explore
from t2i_jax.explore.nearest import nearest
from t2i_jax.run import Run


def test_neighbours_by_hand():
    known = np.float32([[0, 0], [3, 4], [1, 0]])
    order, distances = nearest(np.float32([[0, 0], [3, 3]]), known, 2)
    assert order.tolist() == [[0, 2], [1, 2]]
    np.testing.assert_allclose(distances, [[0, 1], [1, 13**0.5]], rtol=1e-6)


def test_a_sheet_with_what_near_means(trained, tmp_path):
    found = explore(Run.open(trained)['gan'], 'nearest', num=3, out=tmp_path)
    for name in ('features', 'pixels'):
        one = found[name]
        assert one['of_held_out_pictures'] > 0
        assert np.isclose(one['to_them'], one['distance'] / one['of_held_out_pictures'])
    assert json.loads((tmp_path / 'nearest.json').read_text())['training_pictures'] > 0
    assert (tmp_path / 'nearest.png').stat().st_size > 1000
