"""Views of a test image: reading the image, making the crops, loading batches."""

from .make import ViewConfig, centre_crop, centre_crop_geometry, draw_crops, make_views

__all__ = ["ViewConfig", "draw_crops", "make_views", "centre_crop_geometry", "centre_crop"]
