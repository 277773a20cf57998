"""The cost of convolutions, layer by layer, in several forms and in PyTorch.

    python -m benchmarks.layers                                 # every layer, on one core
    python -m benchmarks.layers --torch --out=layers.json       # with PyTorch's, where it is
    installed python -m benchmarks.layers --layers=256 --forms=plain,ours --threads=4

The layers are those of the experiments, by their largest pictures. `plain` is XLA's own convolution
of the layer's definition, `ours` what the systems call, the others what was tried. Each is a
program of its own, forward alone and forward with the gradients of input and kernel, and is checked
against `plain`. The forms take turns, and so does PyTorch, in the same process, on the same cores
with as many threads: with one thread (the default) times are processor time, which other work on
the machine disturbs least, otherwise wall time. Reported are medians, GFLOP/s of the definition (a
doubled or transposed one counts the products that its plain form needs without those with zeros),
and the median ratio of turns to `plain`.
"""

import argparse
import datetime
import json
import os
import pathlib
import statistics
import sys
import time
from typing import NamedTuple


class Layer(NamedTuple):
    # 'conv', 'transposed' (stride 2) or 'doubled' (nearest pixels, then a convolution)
    kind: str
    batch: int
    # pixels, of the input
    side: int
    c: int
    d: int
    kernel: int
    stride: int = 1

    @property
    def name(self):
        by = f'{self.kernel}x{self.kernel}' + (f'/{self.stride}' if self.stride > 1 else '')
        return f'{self.kind} {by}, {self.side} px, {self.c} to {self.d}, batch {self.batch}'

    @property
    def out(self):
        return self.side // self.stride if self.kind == 'conv' else 2 * self.side

    @property
    def flops(self):
        """Of the forward pass."""
        pixels = self.side if self.kind == 'transposed' else self.out
        return 2 * self.batch * pixels**2 * self.kernel**2 * self.c * self.d


LAYERS = {
    # gan_cls_shapes:laptop, stackgan_pp_shapes, attngan_shapes, dcgan_shapes,
    # attribute2image_shapes
    64: [
        Layer('conv', 32, 64, 3, 32, 4, 2),
        Layer('conv', 32, 32, 32, 64, 4, 2),
        Layer('conv', 32, 16, 64, 128, 4, 2),
        Layer('conv', 32, 8, 128, 256, 4, 2),
        Layer('conv', 32, 4, 192, 128, 3),
        Layer('conv', 32, 8, 32, 128, 3),
        Layer('conv', 32, 16, 64, 128, 3),
        Layer('conv', 32, 32, 32, 64, 3),
        Layer('conv', 32, 64, 16, 3, 3),
        Layer('conv', 32, 4, 320, 256, 1),
        Layer('conv', 32, 8, 128, 32, 1),
        Layer('conv', 32, 32, 32, 64, 5, 2),
        Layer('transposed', 32, 4, 256, 128, 4),
        Layer('transposed', 32, 16, 64, 32, 4),
        Layer('transposed', 32, 32, 32, 3, 4),
        Layer('transposed', 32, 16, 64, 32, 5),
        Layer('doubled', 32, 4, 256, 256, 3),
        Layer('doubled', 32, 16, 64, 64, 3),
        Layer('doubled', 32, 32, 32, 32, 3),
        Layer('doubled', 32, 16, 64, 32, 5),
    ],
    # stackgan_pp_birds, attngan_birds, stackgan_coco
    256: [
        Layer('conv', 4, 256, 3, 64, 4, 2),
        Layer('conv', 4, 128, 64, 128, 4, 2),
        Layer('conv', 4, 64, 128, 256, 4, 2),
        Layer('conv', 4, 16, 512, 1024, 4, 2),
        Layer('conv', 4, 8, 1024, 2048, 4, 2),
        Layer('conv', 24, 8, 512, 1024, 4, 2),
        Layer('conv', 4, 4, 2048, 1024, 3),
        Layer('conv', 24, 4, 1024, 512, 3),
        Layer('conv', 4, 64, 64, 128, 3),
        Layer('conv', 4, 128, 32, 64, 3),
        Layer('conv', 4, 128, 64, 128, 3),
        Layer('conv', 4, 256, 16, 3, 3),
        Layer('doubled', 4, 4, 1024, 1024, 3),
        Layer('doubled', 4, 32, 128, 128, 3),
        Layer('doubled', 4, 128, 32, 32, 3),
    ],
}


def padding(layer):
    """Zeros before and after rows and columns, as jax.lax.conv_general_dilated takes them."""
    if layer.kind == 'transposed':
        return ((2, layer.kernel - 2),) * 2
    return ((layer.kernel // 2 - (layer.stride == 2 and layer.kernel == 4),) * 2,) * 2


# ---------------------------------------------------------------------------- ways to write a layer
def forms(layer):
    """{name: function of x, b h w c, and the kernel, k k c d}, `plain` first."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from einops import rearrange, repeat

    from t2i_jax.layers import conv as ours

    pads, k, stride = padding(layer), layer.kernel, layer.stride

    def convolve(x, kernel, strides=(1, 1), pads='SAME', **more):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, pads, dimension_numbers=ours.DIMENSIONS, **more
        )

    def plain(x, kernel):
        return convolve(x, kernel, (stride, stride), pads)

    def channels_first(x, kernel):
        x, kernel = rearrange(x, 'b h w c -> b c h w'), rearrange(kernel, 'h w c d -> d c h w')
        y = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=('NCHW', 'OIHW', 'NCHW')
        )
        return rearrange(y, 'b c h w -> b h w c')

    @jax.custom_vjp
    def rows(x, kernel):
        """Convolve; the gradient of the kernel comes from patches of some rows at a time.

        Their matrix products stay in the cache.
        """
        return plain(x, kernel)

    def rows_back(saved, dy):
        x, kernel = saved
        b, side, _, d = dy.shape
        height = next(n for n in range(max(1, min(side, 1024 // side)), 0, -1) if side % n == 0)
        count = max(
            n for n in range(1, b + 1) if b % n == 0 and (n == 1 or n * height * side <= 1024)
        )  # pictures
        wide = jnp.pad(x, ((0, 0), *pads, (0, 0)))

        def add(total, i):
            start, row = i // (side // height) * count, i % (side // height) * height
            part = jax.lax.dynamic_slice(
                wide,
                (start, row * stride, 0, 0),
                (count, (height - 1) * stride + k, *wide.shape[2:]),
            )
            g = rearrange(
                jax.lax.dynamic_slice(dy, (start, row, 0, 0), (count, height, side, d)),
                'b h w d -> (b h w) d',
            )
            return total + g.T @ rearrange(
                ours.patches(part, k, stride), 'b h w n -> (b h w) n'
            ), None

        total, _ = jax.lax.scan(
            add, jnp.zeros((d, kernel.size // d)), jnp.arange(b // count * (side // height))
        )
        (dx,) = jax.vjp(lambda x: plain(x, kernel), x)[1](dy)
        return dx, total.T.reshape(kernel.shape)

    rows.defvjp(lambda x, kernel: (plain(x, kernel), (x, kernel)), rows_back)

    def transposed(x, kernel):
        return convolve(x, kernel, (1, 1), pads, lhs_dilation=(2, 2))

    def doubled(x, kernel):
        return convolve(repeat(x, 'b h w c -> b (h 2) (w 2) c'), kernel)

    def one(x, kernel):
        """Make the four places of a pixel as channels of one convolution of 3x3.

        Entries of a transposed kernel lie at known offsets.
        """
        taps = np.zeros((2, 3, k), np.float32)
        for place in range(2):
            for entry in range(k):
                if (place + entry - pads[0][0]) % 2 == 0:
                    taps[place, (place + entry - pads[0][0]) // 2 + 1, entry] = 1
        four = rearrange(
            jnp.einsum('pai,qbj,ijco->abcpqo', taps, taps, kernel), 'a b c p q o -> a b c (p q o)'
        )
        return rearrange(convolve(x, four), 'b h w (p q o) -> b (h p) (w q) o', p=2, q=2)

    if layer.kind == 'transposed':
        return dict(
            plain=transposed,
            ours=lambda x, kernel: ours.conv_transpose(x, kernel, pads[0]),
            one=one,
        )
    if layer.kind == 'doubled':
        return dict(plain=doubled, ours=ours.conv3_doubled if k == 3 else ours.conv_doubled) | (
            dict(one=ours.conv_doubled) if k == 3 else {}
        )
    found = dict(
        plain=plain,
        ours=lambda x, kernel: ours.convolution(x, kernel, stride, pads),
        channels_first=channels_first,
    )
    if k > 1:
        found['dots'] = lambda x, kernel: ours.dots(x, kernel, stride, pads)
    if (k, stride) == (4, 2):
        found['blocks'] = ours.conv_few
    if k == 3 or (k, stride) == (4, 2):
        found['rows'] = rows
    return found


def torch_form(layer):
    """PyTorch's, as a function of its tensors x, b c h w, and kernel."""
    import torch.nn.functional as F

    if layer.kind == 'transposed':
        odd = layer.kernel % 2
        return lambda x, kernel: F.conv_transpose2d(
            x, kernel, stride=2, padding=1 + odd, output_padding=odd
        )
    if layer.kind == 'doubled':
        return lambda x, kernel: F.conv2d(
            F.interpolate(x, scale_factor=2.0, mode='nearest'), kernel, padding=layer.kernel // 2
        )
    return lambda x, kernel: F.conv2d(x, kernel, stride=layer.stride, padding=padding(layer)[0][0])


# ------------------------------------------------------------------------------------------ measure
def contestants(layer, names, with_torch):
    """Return {direction: {name: function without arguments that computes and waits}}.

    Raises RuntimeError where a form gives other numbers than `plain`.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    rng = np.random.default_rng(0)
    x, kernel, dy = (
        rng.standard_normal(shape, np.float32)
        for shape in (
            (layer.batch, layer.side, layer.side, layer.c),
            (layer.kernel, layer.kernel, layer.c, layer.d),
            (layer.batch, layer.out, layer.out, layer.d),
        )
    )
    arrays, found, expected = (
        [jnp.asarray(a) for a in (x, kernel, dy)],
        {'forward': {}, 'both': {}},
        {},
    )
    for name, form in forms(layer).items():
        if name != 'plain' and names and name not in names:
            continue

        def both(x, kernel, dy, form=form):
            y, pull_back = jax.vjp(form, x, kernel)
            return y, *pull_back(dy)

        for direction, function, arguments in (
            ('forward', form, arrays[:2]),
            ('both', both, arrays),
        ):
            program = jax.jit(function).lower(*arguments).compile()
            out = [np.asarray(a) for a in jax.tree.leaves(program(*arguments))]
            for one, other in zip(out, expected.setdefault(direction, out)):
                if not np.abs(one - other).max() <= 1e-4 * np.abs(other).max():
                    raise RuntimeError(f'{layer.name}: {name} is not what plain is.')
            found[direction][name] = lambda program=program, arguments=arguments: (
                jax.block_until_ready(program(*arguments))
            )
    if with_torch:
        import torch

        first, form = (
            (lambda a: torch.from_numpy(a.transpose(0, 3, 1, 2).copy())),
            torch_form(layer),
        )
        tx, tdy = first(x).requires_grad_(), first(dy)
        flipped = (
            kernel[::-1, ::-1].transpose(2, 3, 0, 1)
            if layer.kind == 'transposed'
            else kernel.transpose(3, 2, 0, 1)
        )
        tk = torch.from_numpy(flipped.copy()).requires_grad_()
        y = form(tx, tk).detach().numpy().transpose(0, 2, 3, 1)
        if not np.abs(y - expected['forward'][0]).max() <= 1e-4 * np.abs(y).max():
            raise RuntimeError(f'{layer.name}: PyTorch computes something else.')

        def alone():
            with torch.no_grad():
                form(tx, tk)

        found['forward']['torch'], found['both']['torch'] = (
            alone,
            lambda: torch.autograd.grad(form(tx, tk), (tx, tk), tdy),
        )
    return found


def alternate(functions, clock, seconds):
    """{name: seconds of each turn}; for so long, five turns at least."""
    times = {name: [] for name in functions}
    for function in functions.values():
        function()
    began, turn = time.perf_counter(), 0
    while turn < 5 or (time.perf_counter() - began < seconds and turn < 200):
        for name in list(functions)[:: 1 if turn % 2 else -1]:
            start = clock()
            functions[name]()
            times[name].append(clock() - start)
            if name == 'torch' and clock is time.perf_counter:
                # its threads spin for a while before they sleep
                time.sleep(0.01)
        turn += 1
    return times


def measure(layer, names, with_torch, clock, seconds):
    """Rows, one for each direction and form."""
    rows = []
    for direction, functions in contestants(layer, names, with_torch).items():
        times, passes = alternate(functions, clock, seconds), 1 if direction == 'forward' else 3
        for name, spent in times.items():
            median = statistics.median(spent)
            rows.append(
                dict(
                    layer=layer.name,
                    **layer._asdict(),
                    direction=direction,
                    form=name,
                    ms=1e3 * median,
                    least_ms=1e3 * min(spent),
                    gflops_per_s=passes * layer.flops / median / 1e9,
                    to_plain=statistics.median(a / b for a, b in zip(spent, times['plain'])),
                    to_torch=statistics.median(a / b for a, b in zip(spent, times['torch']))
                    if with_torch
                    else None,
                )
            )
    return rows


def line(rows):
    """A layer's rows as a row of the table: ms and GFLOP/s of `plain`, then ratios to it."""
    found = {(row['direction'], row['form']): row for row in rows}
    cells = [rows[0]['layer']]
    for direction in ('forward', 'both'):
        first = found[direction, 'plain']
        others = [
            f'{form} {row["to_plain"]:.2f}'
            for (way, form), row in found.items()
            if way == direction and form not in ('plain', 'ours', 'torch')
        ]
        cells += [
            f'{first["ms"]:.1f} ({first["gflops_per_s"]:.0f})',
            *(
                f'{found[direction, form]["to_plain"]:.2f}' if (direction, form) in found else ''
                for form in ('ours', 'torch')
            ),
            f'{found[direction, "ours"]["to_torch"]:.2f}'
            if (direction, 'ours') in found and first['to_torch']
            else '',
            ', '.join(others),
        ]
    return '| ' + ' | '.join(cells) + ' |'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--layers', default='', help='those whose set (64, 256) or name holds this')
    parser.add_argument(
        '--forms', default='', help='a few of them, joined by commas; plain is always there'
    )
    parser.add_argument('--torch', action='store_true', help='PyTorch next to them')
    parser.add_argument(
        '--threads', type=int, default=1, help='cores of the processor that are used'
    )
    parser.add_argument('--seconds', type=float, default=1.5, help='of each layer and direction')
    parser.add_argument('--out', help='JSON file for the numbers')
    args = parser.parse_args()
    # Linux; before any of the libraries counts cores
    if hasattr(os, 'sched_setaffinity'):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])
    import jax

    versions = f'jax {jax.__version__}'
    if args.torch:
        try:
            import torch
        except ImportError:
            sys.exit(
                'Error: PyTorch is not installed here: pip install torch, or leave out --torch.'
            )
        torch.set_num_threads(args.threads)
        versions += f', torch {torch.__version__}'
    chosen = [
        layer
        for size, some in LAYERS.items()
        for layer in some
        if args.layers in (str(size), '') or args.layers in layer.name
    ]
    if not chosen:
        sys.exit(f'Error: no layer is called {args.layers!r}.')
    clock = time.process_time if args.threads == 1 else time.perf_counter
    kind = 'processor' if args.threads == 1 else 'wall'
    print(
        f'{versions}, {jax.devices()[0].device_kind}, threads: {args.threads}, {kind} time, '
        f'{datetime.date.today()}\n'
    )
    print(
        '| layer | forward, plain: ms (GFLOP/s) | ours | torch | ours to torch | tried | forward '
        'and backward, plain | ours | torch | ours to torch | tried |\n' + '|---' * 11 + '|'
    )
    rows = []
    for layer in chosen:
        found = measure(
            layer, list(filter(None, args.forms.split(','))), args.torch, clock, args.seconds
        )
        print(line(found), flush=True)
        rows += found
    if args.out:
        report = dict(
            command=' '.join(['python -m benchmarks.layers', *sys.argv[1:]]),
            date=str(datetime.date.today()),
            versions=versions,
            threads=args.threads,
            rows=rows,
        )
        pathlib.Path(args.out).write_text(json.dumps(report, indent=2) + '\n')


if __name__ == '__main__':
    main()
