"""Writing a random Llama as GGUF, and generating with it in llama.cpp.

    python tests/bench/export_bench.py [--width 768 --layers 12 --vocab 32000] [--threads 2]

One JSON line: for each quantization the seconds of the write (wall and CPU), million weights per CPU second, megabytes, and tokens per
second of llama.cpp for a prompt and for generation. `of_bandwidth`: bytes of the file times tokens per second, as a share of what a plain
copy in the same run reads and writes. Read the CPU figures when other processes share the cores.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_contracts.bundles import LLAMA3_SPLIT, checkpoint_shapes
from stages.export_gguf.llama_cpp import loaded
from stages.export_gguf.vocabulary import read_vocabulary
from stages.export_gguf.writer import write

PROMPT, NEW = 256, 64


def checkpoint(folder: Path, sizes: argparse.Namespace) -> dict[str, object]:
    """A folder with random weights and a tokenizer of bytes."""
    config: dict[str, object] = {
        "model_type": "llama", "vocab_size": sizes.vocab, "hidden_size": sizes.width, "intermediate_size": sizes.width * 8 // 3 // 32 * 32,
        "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.width // 64, "num_key_value_heads": sizes.width // 64,
        "head_dim": 64, "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True,
    }  # fmt: skip
    torch.manual_seed(0)
    shapes = checkpoint_shapes(config)
    weights = {name: torch.randn(shape) * 0.02 if len(shape) > 1 else torch.ones(shape) for name, shape in shapes.items()}
    save_file(weights, folder / "m.safetensors")
    alphabet = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    words = Tokenizer(models.BPE({token: number for number, token in enumerate([*alphabet, "th"])}, [("t", "h")]))
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=alphabet[0], chat_template="{{ messages[0].content }}")
    fast.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    return config


def copy_bandwidth() -> float:
    """Bytes per second that are read by the best of five copies of 256 MB."""
    source = np.ones(32 << 20)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - start)
    return 2 * source.nbytes / best


def speed(path: Path, threads: int) -> tuple[float, float]:
    """(prompt, generation) tokens per second, the better of two."""
    best = (0.0, 0.0)
    with loaded(path, threads) as model:
        for _ in range(2):
            prompt = [1 + n * 31 % 256 for n in range(PROMPT)]
            answer = model.complete(prompt, n_predict=NEW, ignore_eos=True, cache_prompt=False)["timings"]
            best = max(best[0], answer["prompt_per_second"]), max(best[1], answer["predicted_per_second"])
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("width", 768), ("layers", 12), ("vocab", 32000), ("threads", os.cpu_count() or 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sizes = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        config = checkpoint(folder, sizes)
        vocabulary = read_vocabulary(folder)
        weights = sum(int(np.prod(shape)) for shape in checkpoint_shapes(config).values())
        bandwidth = copy_bandwidth()
        figures = {}
        for quantization in ("F16", "Q8_0", "Q4_0"):
            path = folder / f"{quantization}.gguf"
            start, cpu = time.perf_counter(), time.process_time()
            write(path, folder, config, vocabulary, quantization, {})
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            prompt, generation = speed(path, sizes.threads)
            figures[quantization] = {
                "write_s": round(seconds, 2), "write_cpu_s": round(cpu, 2), "mweights_cpu_s": round(weights / cpu / 1e6, 1),
                "mb": round(path.stat().st_size / 1e6, 1),
                "prompt_tok_s": round(prompt, 1), "generation_tok_s": round(generation, 1),
                "of_bandwidth": round(generation * path.stat().st_size / bandwidth, 2),
            }  # fmt: skip
            path.unlink()
    print(json.dumps({"bench": "export", "mweights": round(weights / 1e6, 1), "threads": sizes.threads, **figures}))


if __name__ == "__main__":
    main()
