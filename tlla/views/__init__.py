"""Views of a test image: reading the image, making the crops, loading batches."""

from .make import ViewConfig, draw_crops, make_views, plain_geometry, plain_view

__all__ = ["ViewConfig", "draw_crops", "make_views", "plain_geometry", "plain_view"]
