"""Writing a random Llama as GGUF, and generating with it in llama.cpp. One JSON line.

    python -m tests.bench.export_bench [--width 768 --layers 12 --vocab 32000] [--threads 2]

For each quantization that the stage writes by default: seconds of the write (wall and CPU), million
weights per CPU second, megabytes, and tokens per second of llama.cpp for a prompt and for
generation, with as many threads as the stage would give it. `of_bandwidth`: bytes of the file times
tokens generated per second, as a share of what a plain copy in the same run reads and writes. Read
the CPU figures when other processes share the cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_contracts.bundles import LLAMA3_SPLIT
from data_contracts.checkpoint_config import CheckpointConfig
from data_contracts.checkpoint_shapes import checkpoint_shapes
from stages.execution.cores import cores
from stages.export_gguf.config import ExportGgufConfig
from stages.export_gguf.vocabulary import read_vocabulary
from stages.export_gguf.writer import write
from stages.llama_cpp.engine import loaded, useful_threads
from stages.lm.tokenizer import ModelTokenizer
from tests.bench import machine

PROMPT, NEW = 256, 64  # tokens


def checkpoint(folder: Path, width: int, layers: int, vocab: int) -> CheckpointConfig:
    """Random weights and a tokenizer of bytes in `folder`; gives its config.json."""
    values: dict[str, Any] = {
        "model_type": "llama",
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": width * 8 // 3 // 32 * 32,
        "num_hidden_layers": layers,
        "num_attention_heads": width // 64,
        "num_key_value_heads": width // 64,
        "head_dim": 64,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "tie_word_embeddings": True,
    }
    config = CheckpointConfig.parse(values)
    torch.manual_seed(0)
    weights: dict[str, torch.Tensor] = {}
    for name, shape in checkpoint_shapes(config).items():
        weights[name] = torch.randn(shape) * 0.02 if len(shape) > 1 else torch.ones(shape)
    save_file(weights, folder / "m.safetensors")
    _tokenizer().save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(values), "utf-8")
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}', "utf-8")
    return config


def weights_of(config: CheckpointConfig) -> int:
    """How many numbers a checkpoint of this config.json holds."""
    return sum(int(np.prod(shape)) for shape in checkpoint_shapes(config).values())


def _tokenizer() -> PreTrainedTokenizerFast:
    tokens = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "th"]
    ids = {token: number for number, token in enumerate(tokens)}
    words = Tokenizer(models.BPE(ids, [("t", "h")]))
    split = pre_tokenizers.Split(Regex(LLAMA3_SPLIT), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token=tokens[0],
        chat_template="{{ messages[0].content }}",
    )


def copy_bandwidth(megabytes: int) -> float:
    """Bytes per second that the best of five copies of so many megabytes reads and writes."""
    source = np.ones((megabytes << 20) // 8)
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
    prompt = [1 + n * 31 % 256 for n in range(PROMPT)]
    with loaded(path, threads) as model:
        for _ in range(2):
            answer = model.complete(prompt, n_predict=NEW, ignore_eos=True, cache_prompt=False)
            took = answer["timings"]
            best = (
                max(best[0], took["prompt_per_second"]),
                max(best[1], took["predicted_per_second"]),
            )
    return best


def export(
    path: Path,
    folder: Path,
    config: CheckpointConfig,
    threads: int,
    bandwidth: float,
) -> dict[str, float]:
    """Figures of one quantization, which the name of `path` gives; threads 0: as the stage."""
    vocabulary = read_vocabulary(ModelTokenizer(folder))
    start, used = time.perf_counter(), time.process_time()
    write(path, folder, config, vocabulary, path.stem, {}, lambda share: None)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
    threads = threads or useful_threads(path, cores())
    prompt, generation = speed(path, threads)
    size = path.stat().st_size
    return {
        "write_s": seconds,
        "write_cpu_s": cpu_seconds,
        "mweights_cpu_s": weights_of(config) / cpu_seconds / 1e6,
        "mb": size / 1e6,
        "threads": threads,
        "prompt_tok_s": prompt,
        "generation_tok_s": generation,
        "of_bandwidth": generation * size / bandwidth,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=768, help="a multiple of 64")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--vocab", type=int, default=32000, help="at least 258")
    parser.add_argument("--threads", type=int, default=0, help="of llama.cpp; 0: as the stage")
    parser.add_argument("--copy-megabytes", type=int, default=256)
    given = parser.parse_args(arguments)
    bandwidth = copy_bandwidth(given.copy_megabytes)
    figures: dict[str, object] = {"bench": "export", "copy_gb_s": bandwidth / 1e9}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        config = checkpoint(folder, given.width, given.layers, given.vocab)
        for quantization in ExportGgufConfig().quantizations:
            path = folder / f"{quantization}.gguf"
            figures[quantization] = export(path, folder, config, given.threads, bandwidth)
            path.unlink()
    machine.report(figures | {"mweights": weights_of(config) / 1e6})


if __name__ == "__main__":
    main()
