"""Weights that others trained in PyTorch -> a run that samples, evaluates and trains on."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from t2i_jax import stage as core
from t2i_jax.encoders.inception import InceptionTrunk
from t2i_jax.imports.attngan import read_official
from t2i_jax.run import Run, saved_steps
from t2i_jax.runtime.errors import RunError, quoted
from t2i_jax.runtime.lock import Lock

# records of the training splits, as the builders make them
RECORDS = {'cub200_captions': 8855, 'coco2014_captions': 82_783}


def import_attngan(paths, config, workdir, records=0, mask_mode='original') -> dict[str, int]:
    """Write the stages of a run from the official files of AttnGAN -> {stage: step}.

    Without a generator among them the DAMSM alone. The stages count as trained for as long as the
    config says.

    paths: of the files, in any order
    config: an experiment of attngan; widths and sides become those of the files
    workdir: of the new run
    records: of the training split, 0: the published number
    mask_mode: see WordAttention; released generators were trained with 'original'

    Raises DataError for files that do not fit, RunError for a config or workdir that does not.
    """
    if config.system != 'attngan':
        raise RunError(
            f'These are files of attngan, the experiment is one of {config.system}: '
            'give --config=attngan_<data>.'
        )
    records = records or RECORDS.get(config.data.name.partition('/')[0])
    if not records:
        raise RunError(
            'Training goes on only where the number of records is known, and '
            f'{config.data.name} has no published one: give --records=<of its training split>.'
        )
    official, workdir = read_official(paths), pathlib.Path(workdir).resolve()
    trunk = workdir / 'damsm' / 'inception.npz'
    fit(config, official.sizes, str(trunk), mask_mode)
    run = Run.create(config, workdir)
    with Lock(workdir):
        if saved_steps(workdir):
            raise RunError(f'{quoted(workdir)} holds a run already. Choose another --workdir.')
        run.claim()
        official.vocabulary.save(workdir / 'vocabulary.json')
        write_trunk(trunk, official.trunk)
        trees, words = dict(official.trees), len(official.vocabulary)
        parameters, statistics = trees['image']
        frozen = core.split(InceptionTrunk(str(trunk), True)).stats
        trees['image'] = parameters, {**statistics, 'trunk': frozen}
        names = ['damsm', 'gan'] if 'G' in trees else ['damsm']
        # all are whole before the first is saved
        states = {name: state_of(run[name], trees, words, records) for name in names}
        return {name: save(run[name], state, records) for name, state in states.items()}


def fit(config, sizes, trunk, mask_mode):
    """Set what the files decide: widths, sides, and the published form of every choice.

    sizes: see `Official`
    trunk: the file of Inception's weights
    """
    with config.unlocked():
        config.stages.damsm.model.update(
            d=sizes['d'],
            embedding=sizes['embedding'],
            two_biases=True,
            trunk='inception',
            weights=trunk,
            resize='corners',
            places=False,
        )
        if 'gf' not in sizes:
            return
        names = ('gf', 'nz', 'nc', 'residuals', 'scales', 'dcgan', 'df')
        config.stages.gan.model.update(
            {name: sizes[name] for name in names if name in sizes},
            attention_count=sizes['scales'] - 1,
            mask_mode=mask_mode,
            d_norm='batch',
            unit_text=False,
        )
        side = 32 << sizes['scales']
        config.data.load_size = config.data.load_size * side // config.data.size
        config.data.size = side
        smaller = tuple(64 << i for i in range(sizes['scales'] - 1))
        config.stages.gan.data.scales = () if sizes['dcgan'] else smaller


def write_trunk(path, weights):
    """Write Inception's trunk in torchvision's layout.

    Its last layer is required but not used.
    """
    path.parent.mkdir(exist_ok=True)
    last = {
        'fc.weight': np.zeros((1000, 2048), np.float32),
        'fc.bias': np.zeros(1000, np.float32),
    }
    np.savez(path, **weights, **last)


def state_of(stage, trees, words, records):
    """Make the State of a stage at the end of its training, and write its meta.json.

    stage: of the run
    trees: network -> (parameters, running statistics); networks that are missing start untrained
    words: number of words of the vocabulary
    records: of the training split
    """
    stage.write_meta(stage.nominal_meta._replace(nominal=False, vocabulary_size=words))
    steps_per_epoch = max(1, records // stage.block.batch_size)
    program = stage.program(steps_per_epoch=steps_per_epoch)
    init = stage.fresh_state(program)
    shapes = jax.eval_shape(init)
    fresh = [network for network in shapes.params if network not in trees]
    params, stats = {}, {}
    if fresh:

        def initial():
            state = init()
            return core.pick(state.params, fresh), core.pick(state.stats, fresh)

        params, stats = jax.jit(initial)()
    for network in fresh:
        print(f'Stage {stage.name}: {network} starts untrained, its files were not given.')
    taken = {network: trees[network] for network in shapes.params if network in trees}
    params |= {network: tree for network, (tree, _) in taken.items()}
    stats |= {network: tree for network, (_, tree) in taken.items() if network in shapes.stats}
    trained = jax.tree.map(jnp.asarray, (params, stats))
    state = core.init_state(program, *trained, stage.config.seed)
    state = state.replace(step=jnp.int32(stage.total_steps(stage.module, steps_per_epoch)))

    def differ(a, b):
        return (a.shape, a.dtype) != (b.shape, b.dtype)

    # it raises for other names
    different = jax.tree.leaves(jax.tree.map(differ, shapes, state))
    if any(different):
        raise RunError(
            f'{sum(different)} arrays of stage {stage.name} are of other shapes than the network '
            'of this config.'
        )
    return state


def save(stage, state, records) -> int:
    """Save a State as the last checkpoint of a stage -> its step."""
    step, block = int(state.step), stage.block
    extra = dict(seed=stage.config.seed, batch_size=block.batch_size, records=records, total=step)
    extra['vocabulary'] = stage.run.vocabulary.hash[:12]
    checkpoints = stage.checkpoints()
    checkpoints.save(step, state, extra, wait=True)
    checkpoints.close()
    return step
