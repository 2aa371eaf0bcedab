"""A Zenodo record on loopback: the API's answer, range requests, and faults on demand.

``python tests/end_to_end/loopback.py RAW`` packs a raw folder of OpenForensics' form and serves it until interrupted.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from comics.data.openforensics.dataset import CATEGORIES, SPLIT_NAMES, annotation_name

RECORD = "5528418"


def make_raw(raw: Path, images: dict[str, int], seed: int = 0, side: int = 48) -> Path:
    """A raw folder in OpenForensics' form with `images` images a split: every image one real and one fake face."""
    generator = np.random.default_rng(seed)
    for split, count in images.items():
        own = SPLIT_NAMES[split]
        folder = raw / "Images" / own
        folder.mkdir(parents=True, exist_ok=True)
        document: dict = {"info": {}, "licenses": [], "images": [], "categories": CATEGORIES, "annotations": []}
        for i in range(count):
            pixels = generator.integers(0, 256, (side, side + 16, 3), dtype=np.uint8)
            name = f"{split}_{i:03d}.jpg"
            Image.fromarray(pixels).save(folder / name, quality=90)
            document["images"].append(
                {"id": i, "file_name": f"Images/{own}/{name}", "width": side + 16, "height": side}
            )
            for label in (0, 1):
                x, y, size = 4 + 30 * label, int(generator.integers(2, 16)), 20
                document["annotations"].append(
                    {
                        "id": 2 * i + label,
                        "image_id": i,
                        "iscrowd": 0,
                        "area": size * size,
                        "category_id": label,
                        "bbox": [x, y, size, size],
                        "segmentation": [[x, y, x + size, y, x + size, y + size, x, y + size, x, y]],
                    }
                )
        (raw / annotation_name(split)).write_text(json.dumps(document))
    return raw


def pack(raw: Path, parts: int = 2) -> dict[str, bytes]:
    """A record's files: annotations, and images zipped in `parts` parts (Val in one), Test-Dev's folder doubled."""
    files: dict[str, bytes] = {}
    for split, own in SPLIT_NAMES.items():
        if not (raw / annotation_name(split)).exists():
            continue
        files[annotation_name(split)] = (raw / annotation_name(split)).read_bytes()
        images = sorted((raw / "Images" / own).iterdir())
        number = 1 if split == "val" else parts
        shell = f"{own}/{own}" if split == "test_dev" else own
        for part in range(number):
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{shell}/", "")
                archive.writestr("__MACOSX/._junk", "junk")
                for image in images[part::number]:
                    archive.write(image, f"{shell}/{image.name}")
            files[f"{own}.zip" if number == 1 else f"{own}_part_{part + 1}.zip"] = buffer.getvalue()
    return files


@dataclass
class Record:
    """A record and how it is served.

    Attributes:
        files: content of each file, by name.
        sent: bytes of content sent so far, by name.
        requests: names in the order they were asked for.
        cut: names whose first answer breaks off after so many bytes.
        status: names that are answered by these status codes, one after the other, before the content.
        corrupt: names whose first so many answers have their last byte flipped.
        ranges: whether range requests are honoured.
        pause: seconds between two blocks of 4 kB.
    """

    files: dict[str, bytes]
    sent: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    cut: dict[str, int] = field(default_factory=dict)
    status: dict[str, list[int]] = field(default_factory=dict)
    corrupt: dict[str, int] = field(default_factory=dict)
    ranges: bool = True
    pause: float = 0.0

    def answer(self) -> dict:
        """What Zenodo's API says about the record: the addresses are Zenodo's own, as a mirror would repeat them."""
        return {
            "id": int(RECORD),
            "metadata": {"title": "OpenForensics"},
            "files": [
                {
                    "key": name,
                    "size": len(content),
                    "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
                    "links": {"self": f"https://zenodo.org/api/records/{RECORD}/files/{name}/content"},
                }
                for name, content in self.files.items()
            ],
        }


class Server:
    """Serves a `Record` on a free port of the loopback interface; a context manager."""

    def __init__(self, record: Record, port: int = 0) -> None:
        self.record = record

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                _answer(self, record)

        class QuietServer(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # clients that break off are what these tests are about

        self._server = QuietServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _answer(handler: BaseHTTPRequestHandler, record: Record) -> None:
    if handler.path == f"/api/records/{RECORD}":
        _send(handler, 200, json.dumps(record.answer()).encode(), {"Content-Type": "application/json"})
        return
    match = re.fullmatch(rf"/api/records/{RECORD}/files/([^/]+)/content", handler.path)
    name = match[1].replace("%20", " ") if match else ""
    if name not in record.files:
        _send(handler, 404, b"")
        return
    record.requests.append(name)
    if record.status.get(name):
        _send(handler, record.status[name].pop(0), b"", {"Retry-After": "0"})
        return
    content = record.files[name]
    if record.corrupt.get(name, 0) > 0:
        record.corrupt[name] -= 1
        content = content[:-1] + bytes([content[-1] ^ 1])
    start, headers = 0, {"Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
    if asked and record.ranges:
        start = int(asked[1])
        if start >= len(content):
            _send(handler, 416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
    handler.send_response(206 if asked and record.ranges else 200)
    for key, value in {**headers, "Content-Length": str(len(content) - start)}.items():
        handler.send_header(key, value)
    handler.end_headers()
    end = record.cut.pop(name, len(content))
    for at in range(start, end, 4096):
        block = content[at : min(at + 4096, end)]
        handler.wfile.write(block)
        record.sent[name] += len(block)
        if record.pause:
            time.sleep(record.pause)
    if end < len(content):
        handler.close_connection = True


def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(key, value)
    handler.end_headers()
    handler.wfile.write(body)


if __name__ == "__main__":
    with Server(Record(pack(Path(sys.argv[1]))), port=int(sys.argv[2]) if len(sys.argv) > 2 else 0) as server:
        print(server.url, flush=True)
        threading.Event().wait()
