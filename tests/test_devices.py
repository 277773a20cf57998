"""A run is the same on any number of devices and of processes.

Each device does its share; where one process ends, the others end with a message.
"""

import math
import shutil
import signal
import socket
import time

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import lines, opened, restored, saved_steps, start_python
from PIL import Image

from benchmarks import devices
from t2i_jax import stage as core
from t2i_jax.layers.conv import Conv
from t2i_jax.run import Run
from t2i_jax.runtime import hosts, sharding
from t2i_jax.runtime.errors import RunError
from t2i_jax.train import train

ONE = jax.devices()[:1]


def norm(a, b):
    """Of the difference of two trees."""
    return np.sqrt(
        sum(np.square(x - y).sum() for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)))
    )


def one_step(trainer, state, number):
    """(state, metrics) after step `number` from a state in host memory."""
    rows = next(trainer.feed.batches(number, number + 1))
    return trainer.compiled.step(
        jax.device_put(state, trainer.placement), trainer.feed.tables, rows
    )


@pytest.mark.slow
def test_one_device_equals_four_and_sharded_parameters_equal_whole_ones(tiny, trained, tmp_path):
    config = tiny().unlock()
    config.init.text = str(trained)
    for phase in (
        'd_loss',
        'g_loss',
    ):  # where a gradient is almost 0, Adam would make much of a rounding error
        config.stages.gan.optim[phase].update(name='sgd', lr=0.01)
    alone, *others = (
        opened(config, tmp_path, sharding.make_mesh(fsdp, jax.devices()[:n]))
        for fsdp, n in ((1, 1), (1, 4), (2, 4))
    )
    weights = restored(tiny(), trained, 'gan')[1]
    state = jax.device_get(core.init_state(alone.program, weights.params, weights.stats, 0))
    for number in range(
        3
    ):  # each from the same state: what rounding makes of many steps says nothing
        expected, metrics = jax.device_get(one_step(alone, state, number))
        for other in others:
            found, same_metrics = one_step(other, state, number)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
                (metrics, expected.stats),
                jax.device_get((same_metrics, found.stats)),
            )
            # not closer, since a ReLU whose input is nearly 0 may be on in one and off in the other
            for network in ('G', 'D'):
                old, new, same = (
                    jax.device_get(one.params[network]) for one in (state, expected, found)
                )
                assert norm(new, same) < 0.1 * norm(new, old) != 0
            for kernel in (found.params['G']['first']['kernel'], found.ema['G']['first']['kernel']):
                assert kernel.size >= 2**14 and len(kernel.sharding.device_set) == 4
                assert (
                    kernel.addressable_shards[0].data.size * other.mesh.shape['fsdp'] == kernel.size
                )
        state = expected


@pytest.mark.slow
def test_the_first_state_is_the_same_on_any_mesh_and_a_run_may_change_it(dense, tmp_path):
    for name, fsdp, count in (('one', 1, 1), ('four', 2, 4)):
        config = dense(steps=3, sample_every=3).unlock()
        config.mesh.fsdp = fsdp
        train(Run(config, tmp_path / name), jax.devices()[:count])
    first = [
        bytes(Image.open(tmp_path / name / 'gan' / 'samples' / '00000000.png').tobytes())
        for name in ('one', 'four')
    ]
    assert first[0] == first[1]
    config.mesh.fsdp, config.stages.gan.steps = 1, 4
    train(Run(config, tmp_path / 'four'), ONE)
    assert saved_steps(tmp_path / 'four') == [3, 4]
    assert all(
        np.isfinite(x).all() for x in jax.tree.leaves(restored(config, tmp_path / 'four', 'gan')[1])
    )


@pytest.mark.slow
def test_any_number_of_devices_gives_the_same_losses_and_each_holds_its_share(dense, tmp_path):
    config = dense().unlock()
    for phase in ('d_loss', 'g_loss'):
        config.stages.gan.optim[phase].update(name='adam', lr=1e-4)
    state, expected = None, None
    for n, fsdp in ((1, 1), (2, 1), (4, 2), (8, 8)):
        trainer = opened(config, tmp_path, sharding.make_mesh(fsdp, jax.devices()[:n]))
        state = state or jax.device_get(trainer.initial())
        found, losses = one_step(trainer, state, 0)
        expected = expected or losses
        for name, loss in losses.items():
            np.testing.assert_allclose(loss, expected[name], rtol=1e-5)
        for tree in (found.params, found.ema, found.opt):  # Adam's moments, too
            large = [x for x in jax.tree.leaves(tree) if x.size >= 2**14]
            assert large and all(x.addressable_shards[0].data.size * fsdp == x.size for x in large)
        arrays = jax.tree.leaves(found)
        whole, small = (
            sum(x.nbytes for x in arrays),
            sum(x.nbytes for x in arrays if x.size < 2**14),
        )
        held = {
            device: sum(
                shard.data.nbytes
                for x in arrays
                for shard in x.addressable_shards
                if shard.device == device
            )
            for device in jax.devices()[:n]
        }
        assert set(held.values()) == {small + (whole - small) // fsdp}
        assert (
            f'state {whole / 1e6:,.1f} MB, {held[ONE[0]] / 1e6:,.1f} MB on each of {n} '
            f'devices (data {n // fsdp}, fsdp {fsdp})'
            == sharding.describe(trainer.mesh, trainer.shapes, trainer.placement)
        )
    exported = jax.export.export(trainer.compiled.step, platforms=['tpu'])(
        trainer.shapes, trainer.feed.tables, devices.rows(trainer)
    )
    assert exported.platforms == ('tpu',) and exported.nr_devices == 8


@pytest.mark.slow
@pytest.mark.parametrize('system, fsdp', [('gan_cls', 1), ('dcgan', 1), ('dcgan', 8)])
def test_a_device_does_its_share_of_a_step_and_exchanges_gradients_statistics_and_losses_alone(
    system, fsdp, tiny, dense, trained, tmp_path
):
    config = (tiny if system == 'gan_cls' else dense)(
        **({'gan': dict(batch_size=16)} if system == 'gan_cls' else dict(batch_size=16))
    ).unlock()
    config.init.text = str(trained) if system == 'gan_cls' else ''
    trainer = opened(config, tmp_path, sharding.make_mesh(devices=ONE))
    alone = devices.compiled(trainer, trainer.mesh, 1 / 8)  # two rows
    together = devices.compiled(trainer, sharding.make_mesh(fsdp))
    share = together.cost_analysis()['flops'] / alone.cost_analysis()['flops']
    assert (
        0.98 < share < 1.02 if fsdp == 1 else share < 1.02
    )  # there, each has an eighth of the optimiser's work, too
    sent = devices.collectives(together.as_text())
    params, stats = (
        {math.prod(x.shape) for name in ('G', 'D') for x in jax.tree.leaves(tree.get(name))}
        for tree in (trainer.shapes.params, trainer.shapes.stats)
    )
    held = sum(
        math.prod(x.shape) * 4
        for name in ('G', 'D')
        for x in jax.tree.leaves(trainer.shapes.params[name])
    )
    reduced, gathered = (
        [one for one in sent if one.kind == kind] for kind in ('all-reduce', 'all-gather')
    )
    assert len(reduced) + len(gathered) == len(sent) and not any(one.again for one in sent)
    assert {one.size for one in reduced} <= params | stats | {1}
    assert (
        held <= sum(one.bytes for one in reduced) < 4 * held
    )  # D's gradients of real, wrong and drawn pictures, and G's
    assert {one.size for one in gathered} <= {size for size in params if size >= 2**14} and bool(
        gathered
    ) == (fsdp > 1)
    assert not devices.collectives(alone.as_text())


def test_convolutions_stay_convolutions_on_accelerators():
    """Forms that are faster on a CPU alone must not reach the programs of others."""
    from flax import nnx

    graph, params = nnx.split(Conv(16, 16, 3, padding=1, rngs=nnx.Rngs(0)))

    def loss(params, x):
        return jnp.square(nnx.merge(graph, params)(x)).sum()

    x = jax.ShapeDtypeStruct((2, 128, 128, 16), jnp.float32)
    text = jax.export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=['tpu'])(
        params, x
    ).mlir_module()
    assert (
        text.count('stablehlo.convolution') == 3
        and 'stablehlo.while' not in text
        and 'dot_general' not in text
    )


# -------------------------------------------------------------------------------- several processes
def free_port():
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return free.getsockname()[1]


def start_two(config, workdir):
    """Two processes, by the command line, that train what `Run.claim` has put into the workdir."""
    Run(config, workdir).claim()
    flags = f'--workdir={workdir}', f'--coordinator=127.0.0.1:{free_port()}', '--processes=2'
    return [start_python('-u', '-m', 't2i_jax.main', *flags, f'--process={i}') for i in (0, 1)]


def told(process, seconds=90):
    """(exit status, what a process said until it ended); what hangs fails."""
    try:
        said = process.communicate(timeout=seconds)[0].decode()
        return process.returncode, said
    finally:
        process.kill()


def wait_for(process, text):
    said = ''
    for line in process.stdout:
        said += line.decode()
        if text in said:
            return
    raise AssertionError(said)


def settings(dense, fsdp=1, **changes):
    config = dense(
        **{**dict(steps=8, sample_every=4, validate_every=4, checkpoint_every=4), **changes}
    ).unlock()
    config.mesh.fsdp = fsdp
    return config


@pytest.fixture(scope='module')
def whole(dense, tmp_path_factory):
    """(config, workdir) of a run of 8 steps of one process with two devices, which nothing
    interrupted.
    """
    config, workdir = settings(dense, fsdp=2), tmp_path_factory.mktemp('whole')
    train(Run(config, workdir), jax.devices()[:2])
    return config, workdir


def same_run(config, there, here):
    """Whether two runs ended alike to rounding: losses of all steps, parameters."""
    assert [line['step'] for line in lines(there, 'gan')] == [
        line['step'] for line in lines(here, 'gan')
    ]
    for one, two in zip(lines(there, 'gan'), lines(here, 'gan')):
        assert one == pytest.approx(two, rel=1e-4)
    (_, first), (_, a), (_, b) = (
        restored(config, *where)
        for where in ((there, 'gan', 4), (there, 'gan', 8), (here, 'gan', 8))
    )
    assert norm(a.params, b.params) < 0.01 * norm(a.params, first.params) and a.step == b.step == 8


def test_what_one_process_began_two_finish(whole, tmp_path):
    config, there = whole
    here = tmp_path / 'run'
    shutil.copytree(there, here)
    shutil.rmtree(here / 'gan' / 'checkpoints' / '8')
    (status, said), (other, more) = map(told, start_two(config, here))
    assert (status, other) == (0, 0) and 'gan: resumed at step 4 of 8' in said, said + more
    assert 'on each of 2 devices (data 1, fsdp 2)' in said and 'Error' not in said + more
    same_run(config, there, here)
    assert saved_steps(here) == [4, 8] and (here / 'gan' / 'samples' / '00000008.png').exists()


@pytest.mark.slow
def test_two_processes_skip_a_damaged_checkpoint(whole, tmp_path):
    config, there = whole
    here = tmp_path / 'run'
    shutil.copytree(there, here)
    newest = here / 'gan' / 'checkpoints' / '8'
    largest = max(
        (path for path in (newest / 'state').rglob('*') if path.is_file()),
        key=lambda path: path.stat().st_size,
    )
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    (status, said), (other, more) = map(told, start_two(config, here))
    assert (status, other) == (0, 0), said + more
    assert all('checkpoint of step 8' in one and 'is skipped' in one for one in (said, more))
    assert (
        'resumed at step 4 of 8' in said
        and (here / 'gan' / 'checkpoints' / '8.damaged').is_dir()
        and saved_steps(here) == [4, 8]
    )
    same_run(config, there, here)


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_and_one_finishes(dense, whole, tmp_path):
    config, there = whole
    first, second = start_two(config, tmp_path)
    wait_for(first, 'Stage gan:')  # then both note signals
    second.send_signal(signal.SIGTERM)
    (status, said), (other, more) = map(told, (first, second))
    step = saved_steps(tmp_path)[-1]
    assert (status, other) == (130, 130), said + more
    assert (
        step < 8
        and f'Another process received a stop signal: stage gan is saved at step {step} of 8'
        in said
    )
    assert f'SIGTERM: stage gan is saved at step {step} of 8' in more
    train(Run(settings(dense), tmp_path), ONE)
    same_run(config, there, tmp_path)


@pytest.mark.slow
def test_a_process_whose_partner_is_killed_ends_with_a_message(dense, tmp_path):
    config = settings(dense, fsdp=2, steps=100_000, checkpoint_every=60, log_every=1000)
    first, second = start_two(config, tmp_path)
    deadline = time.monotonic() + 90
    while (
        time.monotonic() < deadline
        and first.poll() is None
        and not ((tmp_path / 'gan' / 'checkpoints').exists() and len(saved_steps(tmp_path)) > 1)
    ):
        time.sleep(0.01)
    second.kill()
    began = time.monotonic()
    status, said = told(first)
    assert time.monotonic() - began < 60
    assert (
        status not in (0, None)
        and said.strip().splitlines()[-1].startswith('Error: ')
        and hosts.RESUME in said
    ), said
    assert said.strip().count('Error: ') == 1 and 'another process of th' in said
    assert hosts.RESUME in told(second)[1]  # what was killed has last words, too
    step = saved_steps(tmp_path)[-1]
    assert restored(config, tmp_path, 'gan')[0] == step and step % 60 == 0


def test_errors_that_mean_a_lost_partner(monkeypatch):
    late = TimeoutError('Timed out while waiting for async_write_complete barrier.')
    late.__cause__ = RuntimeError('UNAVAILABLE: failed to connect to all addresses')
    found = [late.__cause__, late, OSError(28, 'No space left on device'), KeyError('index')]
    assert not any(map(hosts.lost, found))  # one process has no partner
    monkeypatch.setattr(hosts, 'several', lambda: True)
    assert list(map(hosts.lost, found)) == [True, True, False, False]


@pytest.mark.parametrize(
    'arguments, parts',
    [
        (
            dict(coordinator='127.0.0.1:7'),
            [
                '--coordinator=<host:port of process 0> --processes=<how many>',
                'one of them is missing',
            ],
        ),
        (dict(processes=2, process=0), ['one of them is missing']),
        (dict(coordinator='127.0.0.1:7', processes=2), ['one of them is missing']),
        (
            dict(coordinator='node1', processes=2, process=1),
            ["coordinator is 'node1'", 'host:port'],
        ),
        (
            dict(coordinator='node1:70000', processes=2, process=1),
            ["coordinator is 'node1:70000'", 'host:port'],
        ),
        (dict(coordinator='node1:7', processes=10**12, process=1), ['--processes is 1000000']),
        (dict(coordinator='node1:7', processes=2, process=2), ['no process 2 of 2', 'from 0 to 1']),
        (
            dict(coordinator='127.0.0.1:7', processes=2, process=1, timeout=1),
            ['127.0.0.1:7 cannot be reached', 'after 1 s', 'process 0 running'],
        ),
        (
            dict(coordinator='no.such.host.invalid:7', processes=2, process=1, timeout=1),
            ['no.such.host.invalid:7 cannot be reached'],
        ),
    ],
)
def test_processes_that_cannot_find_each_other(arguments, parts):
    with pytest.raises(RunError) as error:
        hosts.start(**arguments)
    assert all(part in str(error.value) for part in parts), str(error.value)


def test_a_job_is_read_from_the_environment(monkeypatch):
    names = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
    for name, value in zip(names, ('127.0.0.1:7', '2', '1')):
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match='127.0.0.1:7 cannot be reached'):
        hosts.start(timeout=1)
    monkeypatch.setenv('JAX_PROCESS_ID', 'first')
    with pytest.raises(RunError, match="JAX_PROCESS_ID is 'first'"):
        hosts.start()
    for name in names:
        monkeypatch.delenv(name)

    joined, step = (
        [],
        {'SLURM_STEP_NODELIST': 'node[1-2]'},
    )  # without it, a shell within an allocation
    monkeypatch.setattr(jax.distributed, 'initialize', lambda **options: joined.append(options))
    monkeypatch.setattr(hosts, 'last_words', lambda text: None)
    for environment, coordinator, count in (
        ({}, None, 0),
        ({'SLURM_NTASKS': '2'}, None, 0),
        ({**step, 'SLURM_NTASKS': '1'}, None, 0),
        ({**step, 'SLURM_NTASKS': '2'}, None, 1),
        ({}, 'auto', 1),
        ({'TPU_WORKER_HOSTNAMES': 'localhost'}, None, 0),
        ({'TPU_WORKER_HOSTNAMES': 'a,b'}, None, 1),
    ):
        joined.clear()
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            hosts.start(coordinator)
        assert len(joined) == count and not any(
            'coordinator_address' in options for options in joined
        )


def test_a_port_that_is_taken():
    with (
        socket.create_server(('', 0)) as taken,
        pytest.raises(RunError, match='cannot listen on port .*Choose another port'),
    ):
        hosts.start(f'127.0.0.1:{taken.getsockname()[1]}', 2, 0)


@pytest.mark.slow
def test_a_coordinator_for_whom_nobody_comes(dense, tmp_path):
    Run(settings(dense), tmp_path).claim()
    address = f'127.0.0.1:{free_port()}'
    status, said = told(
        start_python(
            '-m',
            't2i_jax.main',
            f'--workdir={tmp_path}',
            f'--coordinator={address}',
            '--processes=2',
            '--process=0',
            '--join_timeout=1',
        )
    )
    assert (
        status
        and said.startswith(f'Error: Process 0 of 2 waited 1 s for the others at {address}')
        and len(said.splitlines()) == 1
    ), said


@pytest.mark.parametrize('fsdp, count', [(0, 4), (3, 4)])
def test_a_mesh_that_cannot_be(fsdp, count):
    with pytest.raises(RunError, match=f'mesh.fsdp={fsdp} does not divide the {count} devices'):
        sharding.make_mesh(fsdp, jax.devices()[:count])
