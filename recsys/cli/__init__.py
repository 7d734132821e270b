"""The command line."""

from recsys.cli.main import main

__all__ = ["main"]
