"""Torch7 files and pickles are read as plain data.

What they hold comes back, what they ask for is refused, nothing is executed.
"""

import collections
import contextlib
import os
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from t2i_jax.runtime.errors import DataError
from tfds_builders.foreign import pickles, t7


# ------------------------------------------------------------------------------------- Torch7 files
class Torch:
    """Something to be written as a torch object: class name and fields, or raw payload."""

    def __init__(self, name, content, version='V 1'):
        self.name, self.content, self.version = name, content, version


def integer(*values):
    return struct.pack(f'<{len(values)}i', *values)


def longs(*values):
    return struct.pack(f'<{len(values)}q', *values)


def string(text):
    return integer(len(text.encode())) + text.encode()


KINDS = {
    'float64': 'Double',
    'float32': 'Float',
    'uint8': 'Byte',
    'int8': 'Char',
    'int16': 'Short',
    'int32': 'Int',
    'int64': 'Long',
    'float16': 'Half',
}


def tensor(sizes, strides, offset, storage, kind='Float', storage_kind=None):
    """The payload after the index of a tensor, written by hand."""
    body = integer(len(sizes)) + longs(*sizes, *strides, offset)
    return Torch(
        f'torch.{kind}Tensor',
        body
        + (
            integer(0)
            if storage is None
            else integer(4, 1000)
            + string('V 1')
            + string(f'torch.{storage_kind or kind}Storage')
            + longs(len(storage))
            + storage.tobytes()
        ),
    )


def dumps(value, memo=None):
    """Bytes as torch.save writes them."""
    memo = {} if memo is None else memo
    if value is None:
        return integer(0)
    if isinstance(value, bool):
        return integer(5, value)
    if isinstance(value, int | float):
        return integer(1) + struct.pack('<d', value)
    if isinstance(value, str):
        return integer(2) + string(value)
    tag = 3 if isinstance(value, dict | list) else 4
    if id(value) in memo:
        return integer(tag, memo[id(value)][0])
    memo[id(value)] = len(memo) + 1, value
    head = integer(tag, memo[id(value)][0])
    if isinstance(value, dict | list):
        pairs = list(value.items() if isinstance(value, dict) else enumerate(value, 1))
        return (
            head + integer(len(pairs)) + b''.join(dumps(k, memo) + dumps(v, memo) for k, v in pairs)
        )
    if isinstance(value, np.ndarray):
        kind, item = KINDS[value.dtype.name], value.dtype.itemsize
        base = np.ascontiguousarray(value)
        body = integer(value.ndim) + longs(*value.shape, *(s // item for s in base.strides), 1)
        value = Torch(
            f'torch.{kind}Tensor',
            body
            + integer(4, 500 + len(memo))
            + string('V 1')
            + string(f'torch.{kind}Storage')
            + longs(base.size)
            + base.tobytes(),
        )
    content = value.content if isinstance(value.content, bytes) else dumps(value.content, memo)
    return head + (string(value.version) if value.version else b'') + string(value.name) + content


def test_tables_strings_and_numbers():
    shared = {'x': 1.5}
    value = {
        'a': shared,
        'b': shared,
        'list': ['one', 2.0, True, None],
        'nested': {3.0: 'three', 'é': False},
        'empty': {},
    }
    read = t7.loads(dumps(value))
    assert read == value and read['a'] is read['b']
    assert list(read['nested']) == [3, 'é'] and type(read['list'][1]) is float
    assert t7.loads(dumps({2: 'b', 1: 'a'})) == ['a', 'b'] and t7.loads(
        dumps({1: 'a', 3: 'c'})
    ) == {1: 'a', 3: 'c'}
    loop = {'name': 'loop'}
    loop['self'] = loop
    read = t7.loads(dumps(loop))
    assert read['self'] is read


@pytest.mark.parametrize('dtype', KINDS)
def test_tensors_of_each_type(dtype):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    read = t7.loads(dumps({'array': array}))['array']
    assert read.dtype == dtype and np.array_equal(read, array) and not read.flags.writeable


def test_cuda_tensors_and_storages():
    storage = np.arange(6, dtype=np.float32)
    assert np.array_equal(
        t7.loads(dumps(tensor((2, 3), (3, 1), 1, storage, 'Cuda'))), storage.reshape(2, 3)
    )
    longs_ = np.arange(3)
    assert t7.loads(dumps(tensor((3,), (1,), 1, longs_, 'CudaLong'))).tolist() == [0, 1, 2]
    assert t7.loads(dumps(Torch('torch.LongStorage', longs(3, 7, 8, 9)))).tolist() == [7, 8, 9]
    assert t7.loads(dumps(Torch('torch.LongStorage', longs(1, 7), version=''))).tolist() == [
        7
    ]  # as files without versions
    assert t7.loads(dumps(tensor((), (), 1, None))).shape == (0,)


def test_strides_and_offsets_are_honoured():
    storage = np.arange(12, dtype=np.float32)
    whole = storage.reshape(3, 4)
    assert np.array_equal(t7.loads(dumps(tensor((4, 3), (1, 4), 1, storage))), whole.T)
    assert np.array_equal(t7.loads(dumps(tensor((2, 2), (4, 2), 6, storage))), whole[1:, 1::2])
    assert np.array_equal(t7.loads(dumps(tensor((2, 3), (0, 1), 3, storage))), [[2, 3, 4]] * 2)
    assert np.array_equal(t7.loads(dumps(tensor((1, 3), (10**18, 1), 1, storage))), [[0, 1, 2]])


def test_modules_are_their_fields_with_their_class():
    weight = np.ones((2, 3), np.float32)
    linear = Torch('nn.Linear', {'weight': weight, 'gradWeight': None, 'train': False})
    node = Torch('nngraph.Node', {'data': {}})
    net = Torch(
        'nn.Sequential',
        {'modules': [linear, linear], 'children': {node: 1.0, 1: node}, 1.0: 'by position'},
    )
    read = t7.loads(dumps(net))
    assert (
        read.torch_class == 'nn.Sequential'
        and [m.torch_class for m in read['modules']] == ['nn.Linear'] * 2
    )
    assert read['modules'][0] is read['modules'][1] and np.array_equal(
        read['modules'][0]['weight'], weight
    )
    graph_node = read['children'][1]
    assert graph_node.torch_class == 'nngraph.Node' and read['children'][graph_node] == 1
    assert read['modules'][0]['train'] is False and 'nn.Sequential: modules' in repr(read)


def test_depth_has_no_limit():
    value = 'bottom'
    data = b''.join(integer(3, i, 1) + dumps('deeper') for i in range(20_000)) + dumps(value)
    read = t7.loads(data)
    for _ in range(20_000):
        read = read['deeper']
    assert read == value


STORAGE = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    'data, named',
    [
        (dumps({'a': 1, 'b': 'text'})[:-2], 'ends early'),
        (dumps({'a': np.zeros((3, 4))})[:-1], 'ends early'),
        (b'', 'ends early'),
        (b'4\n1\n3\nV 1\n', 'no type'),  # Torch's text format
        (integer(9), 'no type 9'),
        (integer(2, 2**31 - 1), 'impossible length'),
        (integer(2, -1), 'impossible length'),
        (integer(3, 1, -1), '-1 entries'),
        (integer(3, 1, 2**31 - 1), 'ends early'),
        (integer(3, 9, 1) + dumps([1]) + dumps(1), 'key of a table is a list'),
        (integer(3, 9, 1) + dumps(None) + dumps(1), 'key of a table is a NoneType'),
        (dumps(Torch('torch.FloatStorage', longs(2**62))), 'impossible length'),
        (dumps(Torch('torch.FloatStorage', longs(-1))), 'impossible length'),
        (dumps(Torch('torch.FloatTensor', integer(10**6))), '1000000 dimensions'),
        (dumps(tensor((2, 3), (3, 1), 2, STORAGE)), 'leaves its storage'),
        (dumps(tensor((2, 3), (3, 1), 0, STORAGE)), 'leaves its storage'),
        (dumps(tensor((2, 3), (-3, 1), 4, STORAGE)), 'leaves its storage'),
        (dumps(tensor((-2, 3), (3, 1), 1, STORAGE)), 'leaves its storage'),
        (dumps(tensor((2**40, 3), (0, 1), 1, STORAGE)), 'leaves its storage'),
        (
            dumps(tensor((2, 3), (3, 1), 1, STORAGE, storage_kind='Double')),
            'no storage of its type|impossible length',
        ),
        (dumps(Torch('nn.Linear', 'text')), 'not a table of fields'),
        *((integer(tag, 1), 'a Lua function .type [678]') for tag in t7.FUNCTIONS),
        (dumps(Torch('tds.Hash', {})), "class 'tds.Hash'.* refused"),
        (dumps({'a': Torch('os.execute', {'rm': 1})}), "class 'os.execute'.* nothing is executed"),
        (dumps(Torch('torch.QuaternionTensor', {})), 'torch.QuaternionTensor'),
        (dumps(Torch('nn', {})), "'nn'"),
    ],
)
def test_a_torch_file_that_cannot_be_read_is_named(tmp_path, data, named):
    with pytest.raises(DataError, match=f'(?s)here.t7.*(?:{named})'):
        (tmp_path / 'here.t7').write_bytes(data)
        t7.load(tmp_path / 'here.t7')


def test_every_torch_file_that_ends_early_ends_in_one_error():
    data = dumps({'a': np.zeros((2, 2)), 'b': ['x', 1, True], 'c': Torch('nn.Linear', {'d': 1})})
    for end in range(len(data)):
        with pytest.raises(DataError, match='ends early'):
            t7.loads(data[:end])


def test_files_that_are_not_there(tmp_path):
    for module in (t7, pickles):
        with pytest.raises(DataError, match='none cannot be used: No such file'):
            module.load(tmp_path / 'none')


# ------------------------------------------------------------------------------------------ pickles
PLAIN = [
    {'a': 1, (1, 'b'): [1.5, -3, 2**70, -5, 300, 70_000, True, False, None, 'é\n"x\'\\', '']},
    (),
    (1,),
    (1, 2),
    (1, 2, 3),
    (1, 2, 3, 4),
    [],
    {},
    {1, 2},
    frozenset([3]),
    b'\xff\0',
    b'',
    'x' * 300,
    b'y' * 300,
]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_of_every_protocol(protocol):
    assert pickles.loads(pickle.dumps(PLAIN, protocol)) == PLAIN
    special = pickles.loads(
        pickle.dumps(
            [collections.OrderedDict(b=1, a=[2]), collections.defaultdict(list, {'q': [1]})],
            protocol,
        )
    )
    assert special == [{'b': 1, 'a': [2]}, {'q': [1]}] and {type(x) for x in special} == {dict}
    shared = [1]
    read = pickles.loads(pickle.dumps([shared, shared], protocol))
    assert read[0] is read[1]


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol(protocol):
    arrays = [
        np.arange(6, dtype='>f4').reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(['ab', 'c']),
        np.array([True]),
        np.zeros((0, 3)),
        np.array(5),
        np.arange(3, dtype=np.uint8),
        np.array([b'ab']),
    ]
    read = pickles.loads(pickle.dumps([arrays, np.float32(2.5)], protocol))
    assert len(read[0]) == len(arrays)
    assert all(
        np.array_equal(a, b) and a.dtype.newbyteorder('=') == b.dtype and a.shape == b.shape
        for a, b in zip(arrays, read[0])
    )
    assert read[1] == 2.5 and read[1].dtype == np.float32


def test_what_python_2_wrote():
    text = b"(lp1\nS'jpg/image_06734'\np2\naS'caf\\xe9\\n'\naI01\naI7\naL12L\naF0.5\naV\\u20ac\na."
    assert pickles.loads(text) == ['jpg/image_06734', 'café\n', True, 7, 12, 0.5, '€']
    values = np.array([[1, 2, 200]], '<f4')
    content = ''.join(f'\\x{byte:02x}' for byte in values.tobytes()).encode()
    array = (
        b'cnumpy.core.multiarray\n_reconstruct\np1\n(cnumpy\nndarray\np2\n(I0\n'
        b"tp3\nS'b'\np4\ntp5\nRp6\n(I1\n(I1\nI3\ntp7\n"
        b"cnumpy\ndtype\np8\n(S'f4'\np9\nI0\nI1\ntp10\nRp11\n(I3\nS'<'\np12\n"
        b"NNNI-1\nI-1\nI0\ntp13\nbI00\nS'" + content + b"'\np14\ntp15\nb."
    )
    assert np.array_equal(pickles.loads(array), values)
    ordered = b'\x80\x02ccollections\nOrderedDict\nq\x01]q\x02]q\x03(U\x01aK\x01ea\x85Rq\x04.'
    assert pickles.loads(ordered) == {'a': 1}


class Attack:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class Thing:
    pass


def object_array(content):
    array = np.empty(1, object)
    array[0] = content
    return array


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    'make, named',
    [
        (lambda command: Attack(os.system, command), r'(posix|nt)\.system'),
        (
            lambda command: Attack(eval, f'__import__("os").system({command!r})'),
            r'(builtins|__builtin__)\.eval',
        ),
        (
            lambda command: Attack(exec, f'import os; os.system({command!r})'),
            r'(builtins|__builtin__)\.exec',
        ),
        (lambda command: Attack(getattr, 'x', 'upper'), r'(builtins|__builtin__)\.getattr'),
        (
            lambda command: Attack(subprocess.check_call, command),
            r'(subprocess|commands)\.check_call',
        ),
        (
            lambda command: object_array(Attack(os.system, command)),
            r'numpy\.dtype\(.O8.\)|(posix|nt)\.system',
        ),
        (lambda command: object_array(1), r"numpy\.dtype\('O8'\)"),
        (lambda command: [Thing()], r'test_imports\.Thing|copy_?reg\._reconstructor'),
        (lambda command: np.zeros(1, [('a', 'f4')]), r"numpy\.dtype\('V4'\)"),
        (lambda command: {((1, 2), 3): 1}, 'key of the type tuple'),
        (lambda command: 1j, r'(builtins|__builtin__)\.complex'),
    ],
)
def test_everything_else_is_refused_and_nothing_is_executed(tmp_path, protocol, make, named):
    trace = tmp_path / 'executed'
    data = pickle.dumps(make(f'touch {trace}'), protocol)
    with pytest.raises(DataError, match=f'bad.pickle asks for .*(?:{named}).*refused'):
        pickles.loads(data, 'bad.pickle')
    assert not trace.exists()


def numpy_array(shape, content, dtype='f4'):
    """A pickle whose array has that shape and content, fitting or not."""
    return (
        b'\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01'
        + pickle.dumps(shape, 2)[2:-1]
        + b'cnumpy\ndtype\n'
        + pickle.dumps((dtype, 0, 1), 2)[2:-1]
        + b'R\x89'
        + pickle.dumps(content, 2)[2:-1]
        + b'tb.'
    )


@pytest.mark.parametrize(
    'data, named',
    [
        (b"(ios\nsystem\nS'touch x'\n.", r'an instance of os\.system|os\.system'),  # INST
        (b"(cos\nsystem\nS'touch x'\no.", r'os\.system'),  # OBJ
        (
            b'\x80\x02ccollections\nOrderedDict\n)\x81.',
            r'an instance of collections\.OrderedDict',
        ),  # NEWOBJ
        (
            b'\x80\x02cnumpy\nndarray\n(J\x00\xe1\xf5\x05tR.',
            r'numpy\.ndarray with the arguments',
        ),  # an array of 100 million
        (
            b'\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\nK\x00\x85U\x01btR.',
            '_reconstruct with the arguments',
        ),
        (b'\x80\x02ccollections\ndefaultdict\n(cposix\nsystem\ntR.', r'posix\.system'),
        (
            b'\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00xX\x03\x00\x00\x00zip\x86R.',
            r'_codecs\.encode with the arguments',
        ),
        (b'\x80\x02c_codecs\ndecode\n.', r'_codecs\.decode'),
        (b'\x80\x02cbuiltins\nlist\n}X\x01\x00\x00\x00xK\x01sb.', 'a state for Name'),
        (
            b'\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R(K\x04X\x01\x00\x00\x00<K\x01NNtb.',
            'a state for _Dtype',
        ),
        (b'\x80\x02\x82\x01.', 'registered class'),
        (numpy_array((10**9,), '', 'S0'), r"numpy\.dtype\('S0'\)"),
        (numpy_array((10**9,), '', 'U00'), r"numpy\.dtype\('U00'\)"),
        (b'\x80\x02cnumpy\ndtype\n.', r'numpy\.dtype'),
        (b'\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00f4\x85R.', 'a type of numpy'),
        (b'Pname\n.', 'outside of the pickle'),
        (b'\x80\x05\x97.', 'buffer that lies outside'),
    ],
)
def test_other_ways_to_make_an_object_are_refused(data, named):
    with pytest.raises(DataError, match=f'asks for .*(?:{named})'):
        pickles.loads(data)


@pytest.mark.parametrize(
    'data, named',
    [
        (pickle.dumps(PLAIN)[:-1], 'ends early'),
        (b'', 'ends early'),
        (b'\x8e' + b'\xff' * 8, 'not there'),  # 2 ** 64 bytes
        (b'\x95' + b'\xff' * 8, 'no pickle'),
        (b'r\xff\xff\xff\xff.', 'damaged'),
        (b']r\xff\xff\xff\xff0.', 'damaged'),  # a memo of 2 ** 32 entries is no memory
        (b'<html>Sign in</html>', 'no pickle'),
        (b'\x80\x63.', 'later Python'),
        (b'0.', 'damaged'),
        (b't.', 'damaged'),
        (b'h\x05.', 'damaged'),
        (b'K\x01K\x02a.', 'list is missing'),
        (b"S'abc\n.", 'no quotes'),
        (numpy_array((10**12,), ''), 'has 0 bytes'),
        (numpy_array((2, -3), 'x' * 24), 'has the shape'),
        (numpy_array((10**9, 0), ''), 'more rows than the file has bytes'),
        (numpy_array((60_000, 60_000, 0), ''), 'more rows than the file has bytes'),
        (numpy_array((2,), [1.0, 2.0]), 'not a string'),
        (
            b'(lp0\n'
            + b'c_codecs\nencode\n'
            + b'X\x00\x10\x00\x00'
            + b'x' * 4096
            + b'q\x01X\x06\x00\x00\x00latin1q\x02\x86Ra'
            + b'c_codecs\nencode\nh\x01h\x02\x86Ra' * 1000
            + b'.',
            'over and over',
        ),
    ],
)
def test_a_pickle_that_is_damaged_is_named(data, named):
    with pytest.raises(DataError, match=f'(?s)bad.pickle.*(?:{named})'):
        pickles.loads(data, 'bad.pickle')


def test_every_pickle_that_ends_early_ends_in_one_error():
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps([PLAIN, np.arange(4), np.float32(1)], protocol)
        for end in range(len(data)):
            with pytest.raises(DataError, match='damaged or no pickle'):
                pickles.loads(data[:end])


def test_noise_never_gives_anything_but_data_or_one_error():
    rng = np.random.default_rng(0)
    sound = (
        pickle.dumps([PLAIN, np.arange(4.0), collections.OrderedDict(a=1)], 2),
        dumps({'a': np.zeros((2, 2)), 'b': ['x', 1, True]}),
    )
    for data, read in zip(sound, (pickles.loads, t7.loads)):
        for _ in range(1500):
            spoilt = bytearray(data)
            for place in rng.integers(0, len(data), 3):
                spoilt[place] = rng.integers(0, 256)
            with contextlib.suppress(DataError):
                read(bytes(spoilt))


@pytest.mark.slow
def test_the_readers_need_no_jax():
    code = (
        'import sys, tfds_builders.foreign.t7, tfds_builders.foreign.weights, '
        'tfds_builders.old_downloads; sys.exit("jax" in sys.modules)'
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0
