"""Pickles of plain data, of Python 2 and 3, read without executing anything.

A machine of its own reads them: it builds the types listed here and calls nothing. A pickle is a
program. Python's unpickler can be restricted to allowed names, but still calls those with any
arguments and sets attributes of whatever they return; here a name is only a word that some rule
understands, or that is refused.
"""

import pickle
import re

import numpy as np

from tfds_builders.errors import DataError, quoted
from tfds_builders.files import HUGE, read_bytes
from tfds_builders.foreign.pickle_codes import OPERATIONS

# what may be a key
SCALARS = (str, bytes, int, float, type(None))
TYPES = (
    'list',
    'dict',
    'set',
    'frozenset',
    'tuple',
    'int',
    'float',
    'str',
    'bytes',
    'bool',
    'long',
    'unicode',
)
NAMES = {
    **{f'{module}.{name}': name for module in ('builtins', '__builtin__') for name in TYPES},
    **{
        f'numpy.{core}.multiarray.{name}': name
        for core in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    },
    **{f'numpy.{core}.numeric._frombuffer': '_frombuffer' for core in ('core', '_core')},
    'numpy.ndarray': 'ndarray',
    'numpy.dtype': 'dtype',
    '_codecs.encode': 'encode',
    'collections.OrderedDict': 'OrderedDict',
    'collections.defaultdict': 'defaultdict',
}


def load(path):
    """Return the object in a file, as `loads` gives it. Raises DataError."""
    return loads(read_bytes(path, HUGE), quoted(path))


def loads(data: bytes, name='the pickle'):
    """Return the object in these bytes.

    It is made of lists, dictionaries (of every kind), tuples, sets, strings, bytes, numbers and
    numeric arrays. Strings of Python 2 are read as Latin-1. `name` stands in messages. Raises
    DataError for anything else, which it names, and for a pickle that is damaged.
    """
    machine = Machine(bytes(data), name)
    try:
        value = machine.run()
        if isinstance(value, Name | _Dtype):
            raise machine.refused(value if isinstance(value, Name) else 'a type of numpy')
        return value
    except DataError:
        raise
    except Exception as error:
        # whatever a damaged file makes of the machine
        raise DataError(
            f'{name} is damaged or no pickle: byte {machine.at} of {len(data)} '
            f'({type(error).__name__}: {error}). Fetch it again.'
        ) from None


class Name(str):
    """A name in the pickle, e.g. 'numpy.dtype'; NAMES says by which rule it is understood."""


class _Dtype:
    def __init__(self, code):
        self.code, self.order = code, '='


class Machine:
    # a subclass that reads more than plain data adds rules here and to `value`
    names = NAMES

    def __init__(self, data, name, at=0):
        self.data, self.name, self.at = data, name, at
        self.stack, self.marks, self.memo = [], [], {}
        # bytes that may be copied: what is made from one string again and again must end
        self.room = 4096 + 8 * len(data)

    def run(self):
        data, operations = self.data, OPERATIONS
        while True:
            operation = data[self.at : self.at + 1]
            if not operation:
                raise EOFError('it ends early')
            self.at += 1
            if operation == pickle.STOP:
                return self.stack.pop()
            operations[operation](self)

    def refused(self, what):
        return DataError(
            f'{self.name} asks for {what}, which was refused: only lists, dictionaries, strings, '
            'numbers and numeric arrays are '
            'read, and nothing was executed. Fetch it from its authors, or save it again as plain '
            'lists and arrays.'
        )

    # -------------------------------------------------------------------------------------- reading
    def take(self, size):
        if not 0 <= size <= len(self.data) - self.at:
            raise EOFError(f'{size} bytes are named, and not there')
        self.at += size
        return self.data[self.at - size : self.at]

    def unsigned(self, size):
        return int.from_bytes(self.take(size), 'little')

    def copied(self, content):
        self.room -= len(content)
        if self.room < 0:
            raise MemoryError('it copies its content over and over')
        return content

    def line(self):
        end = self.data.index(b'\n', self.at)
        text, self.at = self.data[self.at : end], end + 1
        return text

    def items(self):
        """Take off the stack what lies above the last mark, and return it."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def last(self, kind):
        if type(self.stack[-1]) is not kind:
            raise TypeError(f'a {kind.__name__} is missing')
        return self.stack[-1]

    # ----------------------------------------------------------------------------------- containers
    def extend(self, items):
        self.last(list).extend(items)

    def update(self, items, into=None):
        into = self.last(dict) if into is None else into
        if len(items) % 2:
            raise ValueError('a key has no value')
        for key, value in zip(items[::2], items[1::2]):
            into[self.key(key)] = value
        return into

    def add(self, items):
        self.last(set).update(map(self.key, items))

    def key(self, value):
        if not isinstance(value, SCALARS) and not (
            isinstance(value, tuple) and all(isinstance(part, SCALARS) for part in value)
        ):
            raise self.refused(f'a key of the type {type(value).__name__}')
        return value

    # ---------------------------------------------------------------------------------------- names
    def find(self, module, name):
        full = f'{module}.{name}'
        if full not in self.names:
            raise self.refused(full)
        self.stack.append(Name(full))

    def find_from_stack(self):
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError('a name is not a string')
        self.find(module, name)

    def apply(self):
        args, name = self.stack.pop(), self.stack.pop()
        if type(args) is not tuple:
            raise TypeError('arguments are not a tuple')
        self.stack.append(self.value(name, self.names[name] if type(name) is Name else None, args))

    def value(self, name, rule, args):
        """Return what a name stands for with these arguments."""
        if rule == '_reconstruct' and type(args[0]) is Name and self.names[args[0]] == 'ndarray':
            # `build` fills it
            value = np.empty(0)
        elif rule == '_frombuffer':
            value = np.empty(0)
            self.fill(value, *(args[i] for i in (2, 1)), args[3] == 'F', args[0])
        elif rule == 'dtype':
            value = _Dtype(self.code(args[0]))
        elif rule == 'scalar':
            value = np.empty(0)
            self.fill(value, (), args[0], False, args[1])
            value = value[()]
        # how Python 3 writes bytes for Python 2
        elif rule == 'encode' and args[1] in (
            'latin1',
            'latin-1',
        ):
            value = self.copied(args[0]).encode('latin1')
        elif rule == 'bytes' and not args:
            value = b''
        elif rule in ('set', 'frozenset') and len(args) == 1 and type(args[0]) is list:
            value = {'set': set, 'frozenset': frozenset}[rule](map(self.key, self.copied(args[0])))
        elif rule == 'defaultdict' and (not args or type(args[0]) is Name or args[0] is None):
            value = {}
        elif rule == 'OrderedDict' and (not args or type(args[0]) in (list, tuple)):
            value = self.update(
                [
                    part
                    for pair in self.copied(args[0] if args else ())
                    for part in (pair[0], pair[1])
                ],
                {},
            )
        else:
            raise self.refused(
                f'{name if rule else type(name).__name__} with the arguments {_short(args)}'
            )
        return value

    def outside(self):
        """Return the value of an identifier on the stack, which names something outside.

        Plain pickles have none, so it is refused.
        """
        raise self.refused('an object that lies outside of the pickle')

    def instance(self):
        raise self.refused(
            'an instance of '
            f'{next((str(x) for x in reversed(self.stack) if type(x) is Name), "a class")}'
        )

    def build(self):
        """Give an array its content, a dtype its byte order."""
        state, target = self.stack.pop(), self.stack[-1]
        if type(target) is np.ndarray and target.shape == (0,):
            self.fill(target, *state[1:5])
        elif (
            type(target) is _Dtype
            and state[1] in ('<', '>', '|', '=')
            and state[2:5] in ((None, None, None), (None, (), None))
        ):
            target.order = state[1]
        else:
            raise self.refused(f'a state for {type(target).__name__}: {_short(state)}')

    def code(self, code):
        code = code.decode('ascii') if isinstance(code, bytes) else code
        if not re.fullmatch(r'[biufcSU][1-9]\d*', code):
            raise self.refused(f'numpy.dtype({code!r})')
        return code

    def fill(self, array, shape, dtype, fortran, data):
        """Make `array` one of that shape and type, in place: lists hold it already."""
        if type(dtype) is not _Dtype:
            raise TypeError('an array has no type')
        dtype = np.dtype(dtype.code if dtype.order == '|' else dtype.order + dtype.code)
        data = self.copied(data).encode('latin1') if isinstance(data, str) else self.copied(data)
        if type(data) is not bytes:
            raise TypeError('the content of an array is not a string')
        count, rows = dtype.itemsize, 1
        for size in shape:
            if type(size) is not int or size < 0:
                raise ValueError('an array has the shape of none')
            count *= size
            rows *= size or 1
        if count != len(data):
            raise ValueError(f'an array of {shape} {dtype} has {len(data)} bytes')
        # of nothing, e.g. a thousand million times 0, which becomes a list of that length
        if rows > 4096 + len(self.data):
            raise ValueError(f'an array of {shape} has more rows than the file has bytes')
        array.__setstate__((1, tuple(shape), dtype, bool(fortran), data))

    def integer_line(self):
        text = self.line()
        self.stack.append(
            {b'00': False, b'01': True}[text] if text in (b'00', b'01') else int(text.rstrip(b'L'))
        )

    def string_line(self):
        text = self.line().strip()
        if len(text) < 2 or text[:1] != text[-1:] or text[:1] not in (b"'", b'"'):
            raise ValueError('a string has no quotes')
        # \xff is U+00FF, as in Latin-1
        self.stack.append(text[1:-1].decode('unicode_escape'))

    def long(self, size):
        self.stack.append(int.from_bytes(self.take(size), 'little', signed=True))

    def protocol(self):
        if self.take(1)[0] > pickle.HIGHEST_PROTOCOL:
            raise ValueError('its protocol is of a later Python')


def _short(value):
    return (
        repr(value)
        if isinstance(value, (str, int))
        else f'of {len(value)}'
        if isinstance(value, (tuple, list, dict))
        else type(value).__name__
    )
