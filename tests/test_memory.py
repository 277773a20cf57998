"""What the allocator of the C library keeps."""

import sys

import pytest
from helpers import start_python

FAULTS = """
import resource, sys
import numpy as np
from t2i_jax.runtime.memory import one_heap, reuse

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    a = np.empty(8_000_000)
    a[:] = 1

if sys.argv[1] == 'kept':
    one_heap()
with reuse() as begin:
    step()
    if sys.argv[1] == 'kept':
        begin()
        step()
    before = faults()
    for _ in range(5):
        step()
    print(faults() - before)
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='glibc')
def test_what_a_step_frees_is_there_for_the_next_one():
    """64 MB have 16,000 pages, or 32 large ones."""
    found = {}
    for how in ('plain', 'kept'):
        process = start_python('-c', FAULTS, how)
        out, errors = process.communicate()
        found[how] = [int(x) for x in out.split()]
    (plain, _), (kept, afterwards) = found['plain'], found['kept']
    assert kept < plain / 10 and afterwards > plain / 3
