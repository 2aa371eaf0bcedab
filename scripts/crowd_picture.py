"""Make docs/images/crowd.jpg: images of crowd's test splits with outlined faces, fake ones with their kind of forgery.

python scripts/crowd_picture.py data/crowd docs/images/crowd.jpg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from PIL import Image, ImageDraw

from comics.classes import CLASSES, category_id

ROWS = [("test_dev", 0, 4), ("test_dev", 4, 8), ("test_challenge", 0, 4)]
SCALE, GAP = 2, 4
COLOURS = {category_id(CLASSES.index("Real")): (86, 180, 233), category_id(CLASSES.index("Fake")): (255, 165, 0)}


def main(folder: Path, target: Path) -> None:
    tiles = []
    for split, first, last in ROWS:
        content = json.loads((folder / split / "annotations.json").read_text())
        for image in content["images"][first:last]:
            size = (image["width"] * SCALE, image["height"] * SCALE)
            with Image.open(folder / split / image["file_name"]) as file:
                tile = file.convert("RGB").resize(size, Image.Resampling.LANCZOS)
            draw = ImageDraw.Draw(tile)
            for face in content["annotations"]:
                if face["image_id"] != image["id"]:
                    continue
                colour = COLOURS[face["category_id"]]
                for ring in face["segmentation"]:
                    points = [(SCALE * x, SCALE * y) for x, y in zip(ring[::2], ring[1::2], strict=True)]
                    draw.line([*points, points[0]], fill=colour, width=2)
                x, y, _, height = (SCALE * value for value in face["bbox"])
                place = (x + 2, min(y + height + 1, size[1] - 12))
                draw.text(place, face.get("forgery", ""), fill=colour, stroke_width=1, stroke_fill=(0, 0, 0))
            tiles.append(tile)
    width, height = tiles[0].size
    columns = ROWS[0][2] - ROWS[0][1]
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, len(ROWS) * (height + GAP) - GAP), "white")
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (index % columns * (width + GAP), index // columns * (height + GAP)))
    sheet.thumbnail((1400, 1400))
    sheet.save(target, quality=85)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
