"""The opcodes of pickles: what each does to the machine of pickles.py.

The machine has a stack, a memo and a place in the file.
"""

import pickle
import struct


def _push(make):
    return lambda m: m.stack.append(make(m))


def _get(number):
    return lambda m: m.stack.append(m.memo[number(m)])


def _put(number):
    return lambda m: m.memo.__setitem__(number(m), m.stack[-1])


def _tuple(size):
    def make(m):
        if len(m.stack) < size:
            raise IndexError('the stack is empty')
        m.stack[-size:] = [tuple(m.stack[-size:])]

    return make


def _refuse(what):
    def refuse(m):
        raise m.refused(what)

    return refuse


def _latin1(size):
    return _push(lambda m: m.take(m.unsigned(size)).decode('latin1'))


def _utf8(size):
    return _push(lambda m: m.take(m.unsigned(size)).decode('utf-8', 'surrogatepass'))


def _bytes(size):
    return _push(lambda m: m.take(m.unsigned(size)))


def _number(m):
    return int(m.line())


def _one(m):
    return m.unsigned(1)


def _four(m):
    return m.unsigned(4)


OPERATIONS = {
    pickle.PROTO: lambda m: m.protocol(),
    pickle.FRAME: lambda m: m.take(8),
    pickle.MARK: lambda m: m.marks.append(len(m.stack)),
    pickle.POP: lambda m: m.stack.pop(),
    pickle.POP_MARK: lambda m: m.items(),
    pickle.DUP: lambda m: m.stack.append(m.stack[-1]),
    pickle.NONE: _push(lambda m: None),
    pickle.NEWTRUE: _push(lambda m: True),
    pickle.NEWFALSE: _push(lambda m: False),
    pickle.INT: lambda m: m.integer_line(),
    pickle.LONG: lambda m: m.integer_line(),
    pickle.BININT: _push(lambda m: struct.unpack('<i', m.take(4))[0]),
    pickle.BININT1: _push(_one),
    pickle.BININT2: _push(lambda m: m.unsigned(2)),
    pickle.LONG1: lambda m: m.long(m.unsigned(1)),
    pickle.LONG4: lambda m: m.long(m.unsigned(4)),
    pickle.FLOAT: _push(lambda m: float(m.line())),
    pickle.BINFLOAT: _push(lambda m: struct.unpack('>d', m.take(8))[0]),
    pickle.STRING: lambda m: m.string_line(),
    pickle.BINSTRING: _latin1(4),
    pickle.SHORT_BINSTRING: _latin1(1),
    pickle.UNICODE: _push(lambda m: m.line().decode('raw_unicode_escape')),
    pickle.BINUNICODE: _utf8(4),
    pickle.SHORT_BINUNICODE: _utf8(1),
    pickle.BINUNICODE8: _utf8(8),
    pickle.BINBYTES: _bytes(4),
    pickle.SHORT_BINBYTES: _bytes(1),
    pickle.BINBYTES8: _bytes(8),
    pickle.BYTEARRAY8: _bytes(8),
    pickle.EMPTY_LIST: _push(lambda m: []),
    pickle.EMPTY_DICT: _push(lambda m: {}),
    pickle.EMPTY_SET: _push(lambda m: set()),
    pickle.EMPTY_TUPLE: _push(lambda m: ()),
    pickle.LIST: _push(lambda m: m.items()),
    pickle.TUPLE: _push(lambda m: tuple(m.items())),
    pickle.DICT: _push(lambda m: m.update(m.items(), {})),
    pickle.FROZENSET: _push(lambda m: frozenset(map(m.key, m.items()))),
    pickle.TUPLE1: _tuple(1),
    pickle.TUPLE2: _tuple(2),
    pickle.TUPLE3: _tuple(3),
    pickle.APPEND: lambda m: m.extend([m.stack.pop()]),
    pickle.APPENDS: lambda m: m.extend(m.items()),
    pickle.SETITEM: lambda m: m.update([m.stack.pop(), m.stack.pop()][::-1]),
    pickle.SETITEMS: lambda m: m.update(m.items()),
    pickle.ADDITEMS: lambda m: m.add(m.items()),
    pickle.GET: _get(_number),
    pickle.BINGET: _get(_one),
    pickle.LONG_BINGET: _get(_four),
    pickle.PUT: _put(_number),
    pickle.BINPUT: _put(_one),
    pickle.LONG_BINPUT: _put(_four),
    pickle.MEMOIZE: _put(lambda m: len(m.memo)),
    pickle.GLOBAL: lambda m: m.find(m.line().decode(), m.line().decode()),
    pickle.STACK_GLOBAL: lambda m: m.find_from_stack(),
    pickle.REDUCE: lambda m: m.apply(),
    pickle.BUILD: lambda m: m.build(),
    pickle.INST: lambda m: _refuse(f'an instance of {m.line().decode()}.{m.line().decode()}')(m),
    pickle.OBJ: lambda m: m.instance(),
    pickle.NEWOBJ: lambda m: m.instance(),
    pickle.NEWOBJ_EX: lambda m: m.instance(),
    **dict.fromkeys(
        (pickle.EXT1, pickle.EXT2, pickle.EXT4), _refuse('an object of a registered class')
    ),
    pickle.PERSID: _refuse('an object that lies outside of the pickle'),
    pickle.BINPERSID: lambda m: m.outside(),
    **dict.fromkeys(
        (pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
        _refuse('a buffer that lies outside of the pickle'),
    ),
}
