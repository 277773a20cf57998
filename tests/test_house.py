"""Rules of the house that imports can break: which part of the library may know which other one."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# these alone know the words of shape_scenes
KNOW_SHAPES = 't2i_jax/scenes/', 't2i_jax/systems/shape_net.py'


def imports(path):
    """Return the names of all modules that a file imports, those within functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    return found


def files(folder):
    """Return {path in the repository: names of imported modules} of a package."""
    return {
        path.relative_to(ROOT).as_posix(): imports(path)
        for path in sorted((ROOT / folder).rglob('*.py'))
    }


def within(name, package):
    return name == package or name.startswith(f'{package}.')


def test_data_sets_import_neither_the_library_nor_jax():
    forbidden = 't2i_jax', 'jax', 'jaxlib', 'flax', 'optax', 'experiments'
    assert {
        path: name
        for path, names in files('tfds_builders').items()
        for name in names
        if any(within(name, package) for package in forbidden)
    } == {}


def test_only_scenes_know_the_words_of_shape_scenes():
    assert {
        path
        for path, names in files('t2i_jax').items()
        if any(within(name, 'tfds_builders.shape_scenes') for name in names)
        and not path.startswith(KNOW_SHAPES)
    } == set()


@pytest.mark.slow
def test_a_data_set_is_built_without_jax(tmp_path):
    code = (
        'import sys; from tfds_builders import get_builder; '
        'from tfds_builders.shape_scenes import builder; '
        'builder.RULES.update(train=20, validation=5, test=5); '
        'get_builder("shape_scenes/rules", sys.argv[1]).download_and_prepare(); '
        'sys.exit("jax" in sys.modules or "t2i_jax" in sys.modules)'
    )
    subprocess.run([sys.executable, '-c', code, str(tmp_path)], check=True, cwd=ROOT)
