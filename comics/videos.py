"""Videos opened: the one place that knows PyAV's reader, for data and for detection.

Needs PyAV (``pip install 'comics-forensics[video]'``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from comics.errors import UserError
from comics.images import MAX_PIXELS, UnreadableImage, shown

CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
"""Kinds of file that are opened. Playlists are not: they name other files, and addresses, to be opened."""


def require_av() -> Any:
    """PyAV.

    Raises:
        UserError: it is not installed; says how to install it.
    """
    try:
        import av
    except ImportError:
        raise UserError("Videos need PyAV, which is not installed.", "pip install 'comics-forensics[video]'") from None
    av.logging.set_level(av.logging.PANIC)
    return av


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The container and its first stream of pictures.

    Raises:
        UnreadableImage: it is absent, or no video that can be read.
        UserError: PyAV is not installed.
    """
    av = require_av()
    name = shown(path)
    try:
        if not path.is_file():
            raise UnreadableImage(f"{name}: {'not a regular file' if path.exists() else 'no such file'}.")
        with path.open("rb") as file, av.open(file, options={"format_whitelist": CONTAINERS}) as container:
            if not container.streams.video:
                raise UnreadableImage(f"{name}: has no pictures.")
            stream = container.streams.video[0]
            if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
                raise UnreadableImage(f"{name}: its frames are larger than what is read.")
            stream.thread_type = "AUTO"
            yield container, stream
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise UnreadableImage(f"{name}: not a video that can be read ({error}).") from None
