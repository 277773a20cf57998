"""The notebooks run from top to bottom, small, and are what their Python files say."""

import os
import pathlib
import shutil

import pytest

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


def run(name, tmp_path, monkeypatch, data_dir):
    """Execute a notebook in a folder of its own -> its cells."""
    nb_run = pytest.importorskip('nbmake.nb_run')
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    monkeypatch.setenv('PYTHONPATH', os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]))
    path = shutil.copy(ROOT / 'notebooks' / name, tmp_path)
    done = nb_run.NotebookRun(pathlib.Path(path), 1800).execute()
    assert done.error is None, done.error.trace
    return done.nb.cells


def pictures(cells):
    """Count the pictures that cells show."""
    outputs = (one for cell in cells for one in cell.get('outputs', ()))
    return sum('image/png' in one.get('data', {}) for one in outputs)


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_its_python_file_without_outputs(path):
    jupytext = pytest.importorskip('jupytext')
    own, other = (jupytext.read(one) for one in (path, path.with_suffix('.py')))
    assert [(c.cell_type, c.source) for c in own.cells] == [
        (c.cell_type, c.source) for c in other.cells
    ], f'jupytext --to ipynb notebooks/{path.stem}.py'
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in own.cells)


def test_quickstart(tmp_path, monkeypatch, data_dir):
    cells = run('quickstart.ipynb', tmp_path, monkeypatch, data_dir)
    # the example, the grid, the curves, own sentences, the interpolation
    assert pictures(cells) == 5
    assert (tmp_path / 'runs/quickstart/gan/checkpoints/4').is_dir()


@pytest.mark.slow
@pytest.mark.parametrize('name, shown', [('own_pictures', 3), ('colab_tpu', 1), ('compare', 3)])
def test_other_notebooks(name, shown, tmp_path, monkeypatch, data_dir):
    assert pictures(run(f'{name}.ipynb', tmp_path, monkeypatch, data_dir)) == shown
