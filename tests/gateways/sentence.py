"""Make a model that always writes one sentence: sentence.py gguf FILE, or sentence.py hf FOLDER. Nothing is downloaded.

A Llama whose attention and feed-forward add nothing: the next token follows from the last one alone. The tokens are
single bytes, which make up every prompt, and a few words, which only the answer has. So text, usage and end are known.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

SENTENCE = ("Sun", "light", " meets", " air", ":", " Rayleigh", " scattering", ",", " ca", "fé", " is ", "🌈", ".")
"""Written word by word, and byte by byte where it is not ASCII, so that characters come in pieces."""
END = "<|end|>"
TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
WIDTH, LAYERS, HEADS, INNER, CONTEXT = 512, 1, 8, 32, 4096


def letters() -> dict[int, str]:
    """Return the character that byte-level vocabularies use for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in plain)
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def written(piece: str) -> str:
    return "".join(letters()[byte] for byte in piece.encode())


def steps() -> list[str]:
    """Return the tokens of the answer."""
    found: list[str] = []
    for piece in SENTENCE:
        found += [written(piece)] if piece.isascii() and len(piece) > 1 else list(written(piece))
    return found


def vocabulary() -> list[str]:
    words = [step for step in steps() if len(step) > 1]
    return [*letters().values(), *words, END]


def weights() -> Iterator[tuple[str, str, np.ndarray[Any, Any]]]:
    """Yield each tensor with its name in GGUF and in Hugging Face's files."""
    import numpy as np

    tokens = vocabulary()
    number = {token: place for place, token in enumerate(tokens)}
    path = steps()
    assert len(set(path)) == len(path), "a token that comes twice would loop"
    follows = {number[a]: number[b] for a, b in zip(path, [*path[1:], END], strict=True)}
    embedding = np.zeros((len(tokens), WIDTH), np.float32)
    embedding[range(len(tokens)), range(len(tokens))] = 1.0
    head = np.zeros((len(tokens), WIDTH), np.float32)
    for place in range(len(tokens)):
        head[follows.get(place, number[path[0]]), place] = 4.0
    ones, square = np.ones(WIDTH, np.float32), np.zeros((WIDTH, WIDTH), np.float32)
    wide, narrow = np.zeros((INNER, WIDTH), np.float32), np.zeros((WIDTH, INNER), np.float32)
    yield "token_embd", "model.embed_tokens", embedding
    yield "output_norm", "model.norm", ones
    yield "output", "lm_head", head
    for layer in range(LAYERS):
        gguf, hf = f"blk.{layer}.", f"model.layers.{layer}."
        yield gguf + "attn_norm", hf + "input_layernorm", ones
        for short, long in (("q", "q"), ("k", "k"), ("v", "v"), ("output", "o")):
            yield f"{gguf}attn_{short}", f"{hf}self_attn.{long}_proj", square
        yield gguf + "ffn_norm", hf + "post_attention_layernorm", ones
        yield gguf + "ffn_gate", hf + "mlp.gate_proj", wide
        yield gguf + "ffn_up", hf + "mlp.up_proj", wide
        yield gguf + "ffn_down", hf + "mlp.down_proj", narrow


def gguf_file(path: Path) -> None:
    import gguf
    import numpy as np

    tokens = vocabulary()
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(CONTEXT)
    out.add_embedding_length(WIDTH)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(INNER)
    out.add_head_count(HEADS)
    out.add_head_count_kv(HEADS)
    out.add_layer_norm_rms_eps(1e-6)
    out.add_rope_dimension_count(WIDTH // HEADS)
    out.add_file_type(gguf.LlamaFileType.ALL_F32)
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre("gpt-2")
    out.add_token_list([*tokens, "ab"])
    kinds = {END: gguf.TokenType.CONTROL}
    out.add_token_types([kinds.get(token, gguf.TokenType.NORMAL) for token in [*tokens, "ab"]])
    out.add_token_merges(["a b"])  # llama.cpp wants one; "ab" is never written and reads like any byte
    out.add_eos_token_id(tokens.index(END))
    out.add_bos_token_id(tokens.index(END))
    out.add_add_bos_token(False)
    out.add_chat_template(TEMPLATE)
    for name, _, tensor in weights():
        more = np.zeros((1, WIDTH), np.float32) if len(tensor) == len(tokens) else tensor[:0]
        out.add_tensor(f"{name}.weight", np.concatenate([tensor, more]))
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def huggingface_folder(folder: Path) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tokens = vocabulary()
    end = tokens.index(END)
    named = {f"{name}.weight": tensor.copy() for _, name, tensor in weights()}
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    level = {"add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {"type": "BPE", "vocab": {token: place for place, token in enumerate(tokens)}, "merges": []}
    special = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False) | {"special": True}
    files = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": len(tokens),
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "tie_word_embeddings": False,
            "torch_dtype": "float32",
            "eos_token_id": end,
            "bos_token_id": end,
        },
        "tokenizer.json": {
            "version": "1.0",
            "added_tokens": [{"id": end, "content": END} | special],
            "pre_tokenizer": {"type": "ByteLevel"} | level,
            "decoder": {"type": "ByteLevel"} | level,
            "model": model,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END,
            "chat_template": TEMPLATE,
            "model_max_length": CONTEXT,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False))


if __name__ == "__main__":
    {"gguf": gguf_file, "hf": huggingface_folder}[sys.argv[1]](Path(sys.argv[2]))
