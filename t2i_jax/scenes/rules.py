"""Rules of shape_scenes/rules that layouts can be checked against, and their exact floors."""

from tfds_builders.shape_scenes.rules import box_floor, checks, count_floor, flipped, has_up

__all__ = ['box_floor', 'checks', 'count_floor', 'flipped', 'floors', 'has_up']


def floors(boxes, labels, likelihoods):
    """Compute the least that likelihoods can be on layouts (N, R, 4) and (N, R), {name: (N,)}.

    likelihoods: as `Stage.likelihoods`: 'nll_per_box' of Gaussians of deviation `sigma`,
    'nll_per_label' of counts by `head`, poisson or categorical; others have no known floor.
    """
    exact = {
        'nll_per_box': lambda sigma: box_floor(boxes, labels, sigma),
        'nll_per_label': lambda head: count_floor(labels, head),
    }
    return {name: exact[name](**form) for name, form in likelihoods.items() if name in exact}
