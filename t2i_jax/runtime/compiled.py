"""The cache of compiled programs between two starts."""

import os


def start_jax():
    """Store compiled programs in the user's cache folder: the second start is fast.

    Where the folder cannot be written they are not stored.
    """
    import jax

    cache = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
    folder = os.path.join(os.path.expanduser(cache), 't2i_jax', 'compiled')
    folder = os.environ.get('JAX_COMPILATION_CACHE_DIR', folder)
    try:
        os.makedirs(folder, exist_ok=True)
        usable = os.access(folder, os.W_OK | os.X_OK)
    except OSError:
        usable = False
    # JAX would warn of every program that it cannot write
    jax.config.update('jax_compilation_cache_dir', folder if usable else None)
    jax.config.update('jax_persistent_cache_min_compile_time_secs', 0)
