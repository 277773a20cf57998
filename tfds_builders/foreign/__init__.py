"""Readers of foreign files (Torch7, pickles, weights). Nothing that they hold is executed."""
