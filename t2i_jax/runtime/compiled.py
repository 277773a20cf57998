"""The cache of compiled programs between two starts."""

import os


def start_jax():
    """Store compiled programs in the user's cache folder: the second start is fast."""
    import jax

    folder = os.path.expanduser('~/.cache/t2i_jax/compiled')
    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR', folder)
    jax.config.update('jax_compilation_cache_dir', folder)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
