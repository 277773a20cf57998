"""`python -m t2i_jax`: the command line."""

from t2i_jax.main import cli

if __name__ == '__main__':
    cli()
