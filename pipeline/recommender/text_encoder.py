"""The text encoder that a bundle names, loaded when it is first asked for."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from item_llm import load_encoder
from pipeline.recommender.bundle import ADAPTER, Bundle


class BundleTextEncoder:
    """Reads texts as the bundle's items were read. Safe to be used by several threads at once.

    Args:
        bundle: the items' bundle.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._encoder: Any = None
        self._loading = threading.Lock()

    def encode(self, text: str) -> NDArray[np.float32]:
        """A text's vector, float32 [d_text], of length 1.

        Raises:
            ValueError: the model knows ids alone, or the encoder's base is absent here or is
                another one than the bundle was made with.
        """
        with self._loading:
            if self._encoder is None:
                self._encoder = self._loaded()
        vector: NDArray[np.float32] = self._encoder.encode([text])[0]
        return vector

    def _loaded(self) -> Any:
        bundled = self._bundle.config.encoder
        if bundled is None:
            raise ValueError(
                f"encode_text: {self._bundle.config.model} knows ids alone, so the bundle names no "
                "text encoder; export a model that reads texts, such as hydra_joint"
            )
        adapter = self._bundle.folder / ADAPTER if bundled.adapted else None
        encoder = load_encoder(bundled.config, adapter)
        if encoder.fingerprint != bundled.fingerprint:
            raise ValueError(
                f"encoder {bundled.config.base!r}: got fingerprint {encoder.fingerprint[:12]}, the "
                f"bundle's items have {bundled.fingerprint[:12]}: other weights or another "
                "tokenizer stand under this name here; put the original in its place"
            )
        return encoder
