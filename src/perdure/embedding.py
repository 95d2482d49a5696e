"""Embeddings, offline: for items that matter to a message and share no word with it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from perdure.errors import ConfigurationError


def wordllama() -> Callable[[list[str]], Any]:
    """Return a function that turns texts into vectors, for ``Policy(embeddings=…)``.

    The model comes inside the package ``wordllama`` (``pip install 'perdure[embeddings]'``);
    nothing is fetched. English above all. Takes half a second and 50 MB once, then about 0.1 ms of
    CPU for each text. Raises :class:`~perdure.errors.ConfigurationError` where the package is
    missing.
    """
    root = logging.getLogger()
    ours = logging.NullHandler()
    root.addHandler(ours)  # or else the package, when imported, sets up the app's logging
    try:
        import wordllama as package  # noqa: PLC0415  # an extra
    except ModuleNotFoundError:
        raise ConfigurationError(
            "These embeddings need wordllama, which is not installed. "
            "Run: pip install 'perdure[embeddings]' (Python up to 3.13; on Linux x86-64)."
        ) from None
    finally:
        root.removeHandler(ours)
    # Named as the cache, its own folder is where it finds the tokenizer that came with it.
    folder = Path(package.__file__).parent
    model = package.WordLlama.load(cache_dir=folder, disable_download=True)

    def embed(texts: list[str]) -> Any:
        return model.embed(texts)

    return embed
