"""Readers of sentences as conditions (labels, attributes), which a data set may declare."""

from collections.abc import Callable
from typing import NamedTuple


class Conditions(NamedTuple):
    """The functions of a data set that read its sentences, None for what it cannot read.

    labels: sentence -> names of the labels that it names
    attributes: (sentence, attribute names) -> (vector, known), float32 and bool (A,)
    fill: (vector, known, rng) -> the vector with what is not known drawn at random
    check: (vector, attribute names); raises DataError for a vector that contradicts itself
    """

    labels: Callable | None = None
    attributes: Callable | None = None
    fill: Callable = lambda vector, known, rng: vector
    check: Callable = lambda vector, names: None
