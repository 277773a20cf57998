"""Readers of foreign files (Torch7, pickle). Nothing that such a file holds is executed."""
