"""The stage, from token shards to a published checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from data_contracts import Artifact, ArtifactError, InputError, Store
from stages.lm.checkpoint import load_model
from stages.lm.config import ModelConfig
from stages.lm.generate import generate
from stages.lm.model import LanguageModel
from stages.lm.tokenizer import ModelTokenizer
from stages.pretrain.heldout import Heldout
from tests.golden import pretrain as golden

Publish = Callable[..., Artifact]
Run = Callable[..., Artifact]
SMALL = golden.SETTINGS | {"compute": {"threads": 1, "precision": "float32"}}


@pytest.mark.slow
def test_a_tiny_model_learns_to_add_and_says_how_well(run: Run, publish: Publish) -> None:
    settings = SMALL | {"training": SMALL["training"] | {"duration": 210, "evaluate_every": 70}}
    checkpoint = run("pretrain", settings, **golden.inputs(publish))
    rows = checkpoint.read("metrics").to_pylist()
    evaluated = [row for row in rows if row["heldout_bits_per_byte"] is not None]
    assert [row["step"] for row in evaluated] == [69, 139, 209]
    figures = checkpoint.manifest.facts["figures"]
    assert figures["heldout_bits_per_byte"] == evaluated[-1]["heldout_bits_per_byte"] < 1.0
    assert figures["skipped_steps"] == 0
    tokenizer = ModelTokenizer(checkpoint).backend
    sums = [(a, b) for a in range(1, 49) for b in range(5, 10)]
    prompts = [tokenizer.encode(f"{a} + {b} = {a + b}.\n{a} + {b + 1} =").ids for a, b in sums]
    answers = generate(load_model(checkpoint), prompts, max_new_tokens=8)
    right = sum(
        tokenizer.decode(answer).startswith(f" {a + b + 1}.\n")
        for (a, b), answer in zip(sums, answers, strict=True)
    )
    assert right > 5 * len(sums) / 50  # five times what guessing among fifty sums would give


@pytest.mark.slow
def test_twice_gives_the_same_bytes(
    run: Run, publish: Publish, store: Store, tmp_path: Path
) -> None:
    inputs = golden.inputs(publish)
    first = run("pretrain", SMALL, **inputs)
    weights = (first.path / "model.safetensors").read_bytes()
    content = first.manifest.content
    subprocess.run(["rm", "-r", str(first.path)], check=True)
    second = run("pretrain", SMALL, **inputs)
    assert (second.path / "model.safetensors").read_bytes() == weights
    assert second.manifest.content == content


@pytest.mark.slow
def test_settings_of_the_machine_do_not_change_the_identity(run: Run, publish: Publish) -> None:
    inputs = golden.inputs(publish)
    one = run("pretrain", SMALL, **inputs)
    other = run(
        "pretrain",
        SMALL | {"compute": {"threads": 2, "micro_batch_size": 1, "precision": "auto"}},
        **inputs,
    )
    assert one.id == other.id


def test_bits_per_byte_are_those_computed_by_hand(publish: Publish) -> None:
    inputs = golden.inputs(publish)
    model = LanguageModel(
        ModelConfig(
            vocab_size=ModelTokenizer(inputs["tokenizer"]).backend.get_vocab_size(),
            context=32,
            width=32,
            heads=2,
            kv_heads=2,
        )
    )
    model.initialize(0)
    heldout = Heldout.read(inputs["token_shards"], 1 << 30)
    tokens = heldout.tokens
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(tokens) - 1, 32):
            window = tokens[start : start + 33]
            logprob = model(window[None, :-1]).log_softmax(-1)[0]
            nats -= float(logprob.gather(1, window[1:, None]).sum())
        score = heldout.score(model)
    size = sum(inputs["token_shards"].read("heldout")["bytes"].to_pylist())
    assert score["heldout_bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert score["heldout_loss"] == pytest.approx(nats / (len(tokens) - 1), rel=1e-5)


def test_held_out_rows_are_read_whole_up_to_the_limit(publish: Publish) -> None:
    shards = golden.inputs(publish)["token_shards"]
    rows = shards.read("heldout").to_pylist()
    some = Heldout.read(shards, len(rows[0]["tokens"]) + 5)
    assert some.tokens.tolist() == rows[0]["tokens"]
    assert some.bytes == rows[0]["bytes"]


def test_shards_of_another_tokenizer_are_refused_before_the_first_step(
    run: Run, publish: Publish
) -> None:
    inputs = golden.inputs(publish)
    other = publish(
        "tokenizer", files=golden.tokenizer_files(golden.train_tokenizer(golden.texts(3), 300))
    )
    with pytest.raises(
        ArtifactError, match=r"encoded with tokenizer.json .* the ids would mean other text"
    ):
        run("pretrain", SMALL, token_shards=inputs["token_shards"], tokenizer=other)


@pytest.mark.parametrize(
    ("train", "heldout", "problem"),
    [(0, 5, "train: holds no tokens"), (5, 0, "heldout: holds 0 tokens")],
)
def test_an_empty_split_is_refused(
    run: Run, publish: Publish, train: int, heldout: int, problem: str
) -> None:
    tokenizer = golden.train_tokenizer(golden.texts(9))
    files = golden.tokenizer_files(tokenizer)
    stamp = f"{hashlib.sha256(files['tokenizer.json']).hexdigest()} {tokenizer.get_vocab_size()}"
    shards = publish(
        "token_shards",
        train=golden.rows(tokenizer, golden.texts(train)),
        heldout=golden.rows(tokenizer, golden.texts(heldout)),
        files={"tokenizer.sha256": stamp.encode()},
    )
    with pytest.raises(InputError, match=problem):
        run("pretrain", SMALL, token_shards=shards, tokenizer=publish("tokenizer", files=files))


@pytest.mark.slow
def test_documents_can_be_kept_from_seeing_each_other(run: Run, publish: Publish) -> None:
    inputs = golden.inputs(publish)
    apart = run("pretrain", SMALL | {"attend_across_documents": False}, **inputs)
    together = run("pretrain", SMALL, **inputs)
    assert apart.id != together.id
    assert apart.manifest.content != together.manifest.content


CHILD = """
import json, sys
import stages
from data_contracts import Store
from stages.run import run_stage
root, settings, shards, tokenizer = sys.argv[1:]
store, stage = Store(root), stages.stage("pretrain")
config = stage.config_class.parse(json.loads(settings), "pretrain")
inputs = {"token_shards": store.find(shards), "tokenizer": store.find(tokenizer)}
run_stage(store, stage, config, inputs)
"""


@pytest.mark.slow
def test_a_run_killed_at_any_moment_continues_to_the_same_bits(
    run: Run, publish: Publish, store: Store, tmp_path: Path
) -> None:
    settings: dict[str, Any] = SMALL | {
        "training": SMALL["training"] | {"duration": 120},
        "compute": {"threads": 1, "precision": "float32", "checkpoint_every": 10},
    }
    inputs = golden.inputs(publish)
    whole = run("pretrain", settings, **inputs)
    other = tmp_path / "other"
    for artifact in inputs.values():
        shutil.copytree(artifact.path, other / "objects" / artifact.artifact_type / artifact.id)
    command = [
        sys.executable,
        "-c",
        CHILD,
        str(other),
        json.dumps(settings),
        inputs["token_shards"].id,
        inputs["tokenizer"].id,
    ]
    for wanted in (1, 4):  # killed twice, later each time
        child = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
        points = other / "drafts" / f"checkpoint-{whole.id}" / "scratch" / "safe_points"
        deadline = time.monotonic() + 120
        while not any(int(path.name[5:]) >= wanted * 10 for path in points.glob("step-*")):
            assert child.poll() is None, "ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert not Store(other).has("checkpoint", whole.id)
    subprocess.run(command, check=True)
    again = Store(other).open("checkpoint", whole.id)
    assert again.manifest.content == whole.manifest.content
    assert load_file(again.file("weights")).keys() == load_file(whole.file("weights")).keys()
