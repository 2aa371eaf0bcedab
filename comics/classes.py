"""The two classes, in one place.

Models count classes from 0 (``CLASSES[0]`` is Real). COCO files count from 1, because a category 0 collides with
the background of several detection libraries; OpenForensics itself counts from 0 and is converted once.
"""

CLASSES: tuple[str, str] = ("Real", "Fake")


def category_id(label: int) -> int:
    """The COCO category id of class index `label`."""
    return label + 1


def class_label(category: int) -> int:
    """The class index of COCO category `category`."""
    return category - 1
