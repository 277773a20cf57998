"""RoIAlign: the part of a map that lies in a box, as a small map (He et al., ICCV 2017)."""

import jax
import jax.numpy as jnp


def roi_align(maps, boxes, size=5, legacy=False):
    """Read maps b h w c in boxes b r 4 -> b r size size c.

    boxes: cx cy w h in [0, 1].

    Maps are read (bilinear) at size + 1 points a side, which span the box, and the mean of each
    four neighbours is taken. Pixel i of n has its centre at (i + 1/2) / n; behind the outermost
    centres the map stays as it is there.

    legacy: the spans of the kernel that Obj-GAN's released code has, which multiplies coordinates
    in units of the map by 1/16, so that it looks at the upper left corner: points lie from
    corner / 16 on, over (w n / 16 + 1) pixels, and read 0 outside.
    """
    rows, columns = (
        _weights(boxes[..., i], boxes[..., 2 + i], n, size, legacy)
        for i, n in ((1, maps.shape[1]), (0, maps.shape[2]))
    )
    # first the axis that leaves less
    half = jnp.einsum('brjw,bhwc->brhjc', columns.astype(maps.dtype), maps)
    return jnp.einsum('brih,brhjc->brijc', rows.astype(maps.dtype), half)


def _weights(centre, span, n, size, legacy):
    """Return the weights of n pixels in each of `size` cells of a span: (..., size, n) float32."""
    centre, span = centre.astype(jnp.float32), span.astype(jnp.float32)
    steps = jnp.arange(size + 1) / size
    low = centre - span / 2
    if legacy:
        points = low[..., None] * n / 16 + (span[..., None] * n / 16 + 1) * steps
        seen = (points >= 0) & (points < n)
    else:
        points = jnp.clip((low[..., None] + span[..., None] * steps) * n - 0.5, 0, n - 1)
        seen = True
    first = jnp.clip(jnp.floor(points), 0, n - 2)
    share = points - first
    hot = jax.nn.one_hot(jnp.stack([first, first + 1], -1).astype(int), n)  # ... size+1 2 n
    weights = (jnp.stack([1 - share, share], -1)[..., None] * hot).sum(-2)
    weights = jnp.where(jnp.expand_dims(jnp.broadcast_to(seen, points.shape), -1), weights, 0)
    return (weights[..., :-1, :] + weights[..., 1:, :]) / 2
