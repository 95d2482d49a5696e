"""Exact token counts, offline: for budgets that are to be used to the last token."""

from __future__ import annotations

from collections.abc import Callable

from perdure.errors import ConfigurationError

_NEWEST = "o200k_base"


def openai_tokens(model: str = "") -> Callable[[str], int]:
    """Return a function that counts tokens as OpenAI's models do, for ``Policy(count_tokens=…)``.

    The tables come with the package ``bpe-openai`` (``pip install 'perdure[tokens]'``); nothing is
    fetched. An unknown model counts as the newest ones do. Raises
    :class:`~perdure.errors.ConfigurationError` where the package is missing.
    """
    try:
        import bpe_openai  # noqa: PLC0415  # an extra
    except ModuleNotFoundError:
        raise ConfigurationError(
            "Exact token counts need bpe-openai, which is not installed. "
            "Run: pip install 'perdure[tokens]'"
        ) from None
    try:
        encoding = bpe_openai.encoding_for_model(model)
    except Exception:  # noqa: BLE001  # whatever it raises for a name that it does not know
        encoding = bpe_openai.get_encoding(_NEWEST)

    def count(text: str) -> int:
        return len(encoding.encode_ordinary(text))

    return count
