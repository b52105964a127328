"""What the images hold is built once for all tests of the charts."""

from tests.charts.installed import built, running

__all__ = ["built", "running"]
