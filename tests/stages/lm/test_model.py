"""The model is the one that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_contracts import ArtifactError, Draft, bundles, current
from data_contracts.checkpoint_config import CheckpointConfig
from stages.lm import attention
from stages.lm.attention import attend, visibility_bias
from stages.lm.checkpoint import load_config, load_model, write_checkpoint
from stages.lm.config import ModelConfig
from stages.lm.tokenizer import ModelTokenizer
from tests.stages.lm import tiny


def written(config: ModelConfig, **changes: Any) -> CheckpointConfig:
    """The config.json of a model, after it was written and read."""
    values = json.loads(json.dumps(config.to_checkpoint().to_json())) | changes
    return CheckpointConfig.parse(values)


IDS = torch.randint(0, 97, (3, 40), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", tiny.SHAPES.values(), ids=tiny.SHAPES)
def test_transformers_computes_the_same_logits_from_the_written_checkpoint(
    shape: dict, tmp_path: Path
) -> None:
    model, out = (
        tiny.model(vocab_size=320, **shape),
        Draft.in_folder("checkpoint", tmp_path / "draft"),
    )
    write_checkpoint(
        out,
        model,
        ModelTokenizer(tiny.tokenizer_folder(tmp_path / "tokenizer")),
        [{"step": 0, "tokens": 1, "skipped": False}],
    )

    assert bundles.problems(current("checkpoint"), out.files) == []
    theirs, loading = AutoModelForCausalLM.from_pretrained(out.files, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    with torch.no_grad():
        logits = theirs.eval()(IDS).logits
        torch.testing.assert_close(model(IDS), logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(load_model(out.files)(IDS), logits, atol=1e-5, rtol=1e-5)
    assert logits.abs().max() > 1  # loud enough to tell
    assert (
        AutoTokenizer.from_pretrained(out.files).eos_token_id
        == theirs.generation_config.eos_token_id
        == 0
    )


@pytest.mark.parametrize("shape", tiny.SHAPES.values(), ids=tiny.SHAPES)
def test_sizes_survive_config_json_and_count_every_weight(shape: dict) -> None:
    config = tiny.config(**shape)
    again = ModelConfig.from_checkpoint(written(config))
    assert again == config.model_copy(update={"head_width": config.head_size})
    assert config.parameters().total == sum(
        weight.numel() for weight in tiny.model(**shape).parameters()
    )


def test_active_parameters_of_a_mixture_are_those_of_the_chosen_experts() -> None:
    config = tiny.config(**tiny.SHAPES["qwen3_moe"])
    assert (
        config.parameters().total - config.parameters().active
        == config.layers * 2 * 3 * config.width * config.moe.expert_width
    )


def test_flops_of_gpt2_small_are_the_published_six_per_weight_and_attention() -> None:
    config = ModelConfig(
        vocab_size=50304, width=768, layers=12, heads=12, kv_heads=12, ffn_width=2048, context=1024
    )
    matrices = 12 * (4 * 768 * 768 + 3 * 768 * 2048) + 50304 * 768 + 25 * 768
    assert config.flops_per_token() == 6 * matrices + 6 * 12 * 1024 * 768


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"attention_bias": True}, "biases"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "yarn"),
    ],
)
def test_a_config_that_asks_for_more_is_refused(change: dict, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason):
        ModelConfig.from_checkpoint(written(tiny.config(), **change))


def test_a_config_of_another_family_or_without_a_size_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="model_type 'gpt2' is none of llama"):
        written(tiny.config(), model_type="gpt2")
    with pytest.raises(ValueError, match="hidden_size is 0, wanted 1"):
        written(tiny.config(), hidden_size=0)
    with pytest.raises(ValueError, match="rope_theta is 'x', wanted a number"):
        written(tiny.config(), rope_parameters={"rope_theta": "x"})


def test_a_document_does_not_see_the_one_before_it_when_segments_are_given() -> None:
    model = tiny.model()
    segments = torch.tensor([[0] * 15 + [1] * 25]).expand(3, 40)
    with torch.no_grad():
        torch.testing.assert_close(
            model(IDS, segments_BT=segments)[:, 15:], model(IDS[:, 15:]), atol=1e-4, rtol=1e-4
        )
        assert not torch.allclose(model(IDS)[:, 15:], model(IDS[:, 15:]), atol=1e-1)


@pytest.mark.parametrize("window", [None, 5])
def test_attention_by_hand_and_by_kernel_agree(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = torch.randn(2, 4, 20, 8), torch.randn(2, 2, 20, 8), torch.randn(2, 2, 20, 8)
    bias = visibility_bias(torch.arange(20)[None], 20, window) if window else None
    by_hand = attend(q, k, v, bias)
    monkeypatch.setattr(attention, "MAX_MANUAL_TOKENS", 0)
    torch.testing.assert_close(by_hand, attend(q, k, v, bias), atol=1e-5, rtol=1e-5)


def test_load_balancing_loss_is_one_when_all_experts_are_as_likely_and_more_otherwise() -> None:
    model = tiny.model(**tiny.SHAPES["qwen3_moe"])
    model(IDS)
    assert (model.balance_B > 1.01).all()
    with torch.no_grad():
        for block in model.model.layers:
            block.mlp.gate.weight.zero_()
    model(IDS)
    assert model.balance_B.tolist() == pytest.approx([1.0] * 3)


def test_weights_that_do_not_fit_their_config_are_refused(tmp_path: Path) -> None:
    out = Draft.in_folder("checkpoint", tmp_path / "draft")
    write_checkpoint(
        out,
        tiny.model(vocab_size=320),
        ModelTokenizer(tiny.tokenizer_folder(tmp_path / "tokenizer")),
        [],
    )
    config = json.loads(out.path("config.json").read_text())
    out.path("config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ArtifactError, match="weights do not fit"):
        load_model(out.files)
    out.path("config.json").write_text("{")
    with pytest.raises(ArtifactError, match="cannot be used"):
        load_config(out.files)


def test_loaded_weights_are_float32_and_trainable_and_no_part_of_the_file(tmp_path: Path) -> None:
    out = Draft.in_folder("checkpoint", tmp_path / "draft")
    write_checkpoint(
        out,
        tiny.model(vocab_size=320),
        ModelTokenizer(tiny.tokenizer_folder(tmp_path / "tokenizer")),
        [],
    )
    path = out.files / "model.safetensors"
    save_file({name: tensor.bfloat16() for name, tensor in load_file(path).items()}, path)
    written = path.read_bytes()
    model = load_model(out.files)
    assert {
        (weight.dtype, weight.requires_grad, weight.device.type) for weight in model.parameters()
    } == {(torch.float32, True, "cpu")}
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    assert path.read_bytes() == written


def test_a_large_checkpoint_is_written_in_several_files_with_an_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.lm.checkpoint.SHARD_BYTES", 20_000)
    model, out = tiny.model(vocab_size=320), Draft.in_folder("checkpoint", tmp_path / "draft")
    write_checkpoint(out, model, ModelTokenizer(tiny.tokenizer_folder(tmp_path / "tokenizer")), [])
    assert len(list(out.files.glob("model-*.safetensors"))) > 2
    assert bundles.problems(current("checkpoint"), out.files) == []
    theirs = AutoModelForCausalLM.from_pretrained(out.files).eval()
    with torch.no_grad():
        torch.testing.assert_close(
            load_model(out.files)(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5
        )
