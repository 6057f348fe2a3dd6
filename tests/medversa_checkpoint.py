"""A MedVersa checkpoint that a test makes itself: random encoders, and a language model that says what it is told.

Every layer of its language model adds nothing, so that the state of a token is its embedding; the output rows then
lead from each token of ``says`` to the next one, starting from the colon that ends every prompt.
"""

from __future__ import annotations

import itertools
import json
import struct
from pathlib import Path
from typing import Any

WORDS = ("The", "heart", "is", "normal", "mask", "###")
SAYS = ("The", "mask", "<2DSEG>", "<3DSEG>", "<DET>", "###")
_PLAIN = ["\u2581", *map(chr, range(33, 127))]
HIDDEN = 64


def pieces(least: int = 0) -> list[tuple[str, float, int]]:
    """Return (piece, score, kind): control pieces, bytes, words with all their beginnings, characters.

    So many as ``least`` with pieces that nothing spells.
    """
    found = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)] + [
        (f"<0x{byte:02X}>", 0.0, 6) for byte in range(256)
    ]
    normal = dict.fromkeys(
        [f"\u2581{word}"[:end] for word in WORDS for end in range(2, len(word) + 2)] + ["##", "###", *_PLAIN]
    )
    found += [(piece, -float(rank), 1) for rank, piece in enumerate(normal)]
    return found + [(f"\u2581\u2603{number}", -1e6, 1) for number in range(len(found), least)]


def write_tokenizer(path: Path, kind: int = 2, least: int = 0) -> None:
    """Write ``tokenizer.model`` of ``least`` pieces; ``kind`` 2 is byte-pair encoding."""

    def varint(value: int) -> bytes:
        out = bytearray()
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        return bytes([*out, value])

    def message(number: int, body: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(body)) + body

    data = b"".join(
        message(1, message(1, piece.encode()) + b"\x15" + struct.pack("<f", score) + b"\x18" + varint(own))
        for piece, score, own in pieces(least)
    )
    path.write_bytes(data + message(2, b"\x18" + varint(kind)))


def write_checkpoint(
    folder: Path,
    *,
    volumes: bool = False,
    says: tuple[str, ...] = SAYS,
    extra: dict[str, Any] | None = None,
    babbles: bool = False,
) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``llama/``; returns the folder.

    With ``babbles`` the language model is random: what it says depends on every token before, and on nothing said.
    """
    import torch
    from safetensors.torch import save_file

    from inference.medversa.network import Network, Sizes

    vocabulary = len(pieces()) + 5
    sizes = Sizes(
        hidden=HIDDEN, intermediate=32, layers=2 if babbles else 1, heads=2, key_value_heads=1 if babbles else 2,
        vocabulary=vocabulary, positions=1024, rms_norm_eps=1e-5, rope_theta=10000.0, eos_token_id=2,
        swin_width=16, swin_depths=(1, 1, 1, 1),
        swin_heads=(1, 2, 4, 8), swin_window=7, has_volumes=volumes, has_image_masks=True, has_boxes=True,
    )  # fmt: skip
    torch.manual_seed(5)
    values = Network(sizes).state_dict()
    spread = 0.5 if babbles else 0.05
    values |= {
        key: torch.randn(value.shape) * spread for key, value in values.items() if key.startswith("llama_model.")
    }
    silent = () if babbles else ("o_proj.weight", "down_proj.weight")
    values |= {key: torch.zeros(v.shape) for key, v in values.items() if key.endswith(silent)}
    values |= {key: torch.ones(v.shape) for key, v in values.items() if "llama_model" in key and "norm" in key}
    # Orthogonal enough that each state picks its own next token.
    embeddings = torch.nn.functional.normalize(torch.randn(vocabulary, HIDDEN), dim=1)
    head = torch.zeros(vocabulary, HIDDEN)
    chain = [_id(":"), *(_id(word) for word in says)]
    for own, following in itertools.pairwise(chain):
        head[following] += 10 * embeddings[own]
    if not babbles:
        values["llama_model.model.embed_tokens.weight"], values["llama_model.lm_head.weight"] = embeddings, head
    original = {original_name(key): value.contiguous() for key, value in values.items()} | (extra or {})
    (folder / "llama").mkdir(parents=True, exist_ok=True)
    save_file(original, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"llama_model": "llama", "max_txt_len": 256}))
    (folder / "llama" / "config.json").write_text(
        json.dumps({"hidden_size": HIDDEN, "num_attention_heads": 2, "max_position_embeddings": 1024})
    )
    write_tokenizer(folder / "llama" / "tokenizer.model")
    return folder


def _id(word: str) -> int:
    known = [piece for piece, _, _ in pieces()]
    added = ("<ImageHere>", "<DET>", "<2DSEG>", "<3DSEG>", "<N/A>")
    if word in added:
        return len(known) + added.index(word)
    return known.index(word if len(word) == 1 else f"\u2581{word}")


def original_name(key: str) -> str:
    """Return what a tensor of the network is called in a checkpoint."""
    if key == "llama_model.lm_head.weight":
        return "llama_model.base_model.model.lm_head.0.weight"
    return key.replace("llama_model.", "llama_model.base_model.model.", 1) if key.startswith("llama_model.") else key
