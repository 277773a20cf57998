"""Rules of the house (docs/design.md) that a reader of the source can check."""

import ast
import collections
import functools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
# rooms from the ground upwards: none imports from a higher floor
FLOORS = (
    ('tfds_builders',),
    ('stage', 'losses', 'metrics', 'runtime', 'draw'),
    ('layers', 'data', 'encoders'),
    ('systems', 'scenes'),
    ('optim', 'config', 'step', 'run'),
    ('train', 'sample', 'evaluate', 'explore', 'export', 'imports', 'demo'),
    ('main', '__main__', '__init__'),
)
TOP = {'__init__', '__main__', 'main', 'run', 'stage', 'step', 'train', 'sample'}
TOP |= {'losses', 'optim'}
# what the papers call the networks of a figure
OF_A_PAPER = {'Generator', 'Discriminator'}
# one kill and resume, and one job of two processes
QUICK_PROCESSES = {
    'test_train.py::test_a_run_that_is_killed_goes_on_where_it_was_saved',
    'test_devices.py::test_what_one_process_began_two_finish',
}
PACKAGES = 't2i_jax', 'tfds_builders', 'experiments', 'benchmarks'
# these alone know the words of shape_scenes
KNOW_SHAPES = 't2i_jax/scenes/', 't2i_jax/systems/shape_net.py'


def imports(path):
    """Return the names of all modules that a file imports, those within functions too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f'{node.module}.{alias.name}' for alias in node.names)}
    return found


@functools.cache
def tree(path):
    return ast.parse(path.read_text(encoding='utf-8'))


def sources(*folders):
    """Paths of the Python files in folders of the repository."""
    return [path for folder in folders for path in sorted((ROOT / folder).rglob('*.py'))]


def where(path, node):
    return f'{path.relative_to(ROOT).as_posix()}:{node.lineno}'


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


# ------------------------------------------------------------------------------------------- rooms
def room(name):
    """The room of a module's name; None outside the house."""
    parts = name.split('.')
    if parts[0] == 'tfds_builders':
        return 'tfds_builders'
    return (parts + ['__init__'])[1] if parts[0] == 't2i_jax' else None


def test_no_room_imports_from_a_higher_floor():
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    upwards = set()
    for folder in ('t2i_jax', 'tfds_builders'):
        for path, names in files(folder).items():
            own = floor[room(path.removesuffix('.py').replace('/', '.'))]
            rooms = {room(name) for name in names if name != 't2i_jax'} & set(floor)
            upwards |= {f'{path} imports {name}' for name in rooms if floor[name] > own}
    assert upwards == set()


def test_no_new_file_lies_at_the_top():
    """Rooms have files; a system is a file in systems/."""
    assert {path.stem for path in (ROOT / 't2i_jax').glob('*.py')} <= TOP


# -------------------------------------------------------------------------------------- source code
def test_no_line_is_longer_than_100_columns():
    assert [
        f'{path.relative_to(ROOT)}:{number}'
        for path in sources(*PACKAGES, 'tests')
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1)
        if len(line) > 100 and 'https:' not in line
    ] == []


def test_a_class_has_a_name_of_its_own():
    found = collections.defaultdict(list)
    for path in sources('t2i_jax'):
        for node in tree(path).body:
            if isinstance(node, ast.ClassDef):
                found[node.name].append(where(path, node))
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert {name: places for name, places in twice.items() if name not in OF_A_PAPER} == {}


def test_no_condition_asks_for_the_name_of_a_data_set():
    found = []
    for path in sources('t2i_jax'):
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Compare)):
                text = ast.unparse(node if isinstance(node, ast.Compare) else node.test)
                found += [where(path, node)] * ('data.name' in text or "data['name']" in text)
    assert found == []


def test_stages_are_asked_by_what_they_declare():
    """No hasattr or getattr on a stage, its class or its module, outside stage.py."""
    asked = re.compile(r'\b(hasattr|getattr)\(([\w.]*\b)?(stage|module|cls|made)\b[^)]*')
    found = []
    for path in sources('t2i_jax'):
        for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            text = asked.search(line)
            place = f'{path.relative_to(ROOT).as_posix()}:{number}'
            found += [place] * bool(text)
    allowed = 't2i_jax/stage.py', 't2i_jax/layers/'
    assert [place for place in found if not place.startswith(allowed)] == []


def test_nothing_is_unpickled():
    """Foreign pickles are read by readers of ours, which execute nothing."""
    found = []
    for path in sources(*PACKAGES):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call):
                call = ast.unparse(node)
                name = call.partition('(')[0]
                loads = name in ('pickle.load', 'pickle.loads', 'torch.load', 'joblib.load')
                found += [where(path, node)] * (loads or 'allow_pickle=True' in call)
    assert found == []


# ------------------------------------------------------------------------------------------- tests
KINDS = ast.Name, ast.arg
STARTS = {'subprocess', 'Popen', 'Lab', 'multiprocessing'}


def used(node):
    """Names that a function uses, its parameters (fixtures) too."""
    named = (x for part in (node.args, *node.body) for x in ast.walk(part))
    return {x.id if isinstance(x, ast.Name) else x.arg for x in named if isinstance(x, KINDS)}


def is_slow(node):
    return any('mark.slow' in ast.unparse(one) for one in node.decorator_list)


def starters(path, known=()):
    """The functions of a test file, helpers and tests, that start processes. known: other names."""
    functions = [node for node in tree(path).body if isinstance(node, ast.FunctionDef)]
    starts, grown = STARTS | set(known), True
    while grown:
        new = {node.name for node in functions if used(node) & starts}
        grown, starts = not new <= starts, starts | new
    return {node.name: node for node in functions if node.name in starts}


def test_who_starts_a_process_is_slow():
    tests = {path.stem: path for path in (ROOT / 'tests').glob('*.py')}
    found = set()
    for path in tests.values():
        known = set()
        for node in tree(path).body:
            if isinstance(node, ast.ImportFrom) and node.module in tests:
                known |= {alias.name for alias in node.names} & set(starters(tests[node.module]))
        found |= {
            f'{path.name}::{name}'
            for name, node in starters(path, known).items()
            if name.startswith('test_') and not is_slow(node)
            if not any('pytestmark = pytest.mark.slow' in ast.unparse(n) for n in tree(path).body)
        }
    assert found <= QUICK_PROCESSES, found - QUICK_PROCESSES


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
