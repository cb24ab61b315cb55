"""Views of a test image: the image read, the crops made, all of it loaded a batch at a time."""

from .make import ViewConfig, draw_crops, make_views, plain_geometry, plain_view

__all__ = ["ViewConfig", "draw_crops", "make_views", "plain_geometry", "plain_view"]
