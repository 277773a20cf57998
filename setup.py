"""Packages: those of the repository, and the folder experiments/ as t2i_jax.experiments."""

from setuptools import find_namespace_packages, setup

setup(
    packages=[
        *find_namespace_packages(include=['t2i_jax*', 'tfds_builders*']),
        't2i_jax.experiments',
    ],
    package_dir={'t2i_jax.experiments': 'experiments'},
)
