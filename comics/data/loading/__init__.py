"""From canonical COCO files to batches: geometry, views, padding."""
