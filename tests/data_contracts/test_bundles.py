"""Every rule of tokenizer, checkpoint, token shards and GGUF, broken alone, is reported as such."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import save

from data_contracts import ContractError, contract_faults, current
from data_contracts.bundles import RULES, problems
from data_contracts.contract import SHIPPED
from data_contracts.tensor_files import gguf_problem, safetensors_header
from tests.data_contracts import bundle_samples as samples
from tests.data_contracts.samples import good_rows

WEIGHTS = samples.checkpoint()["model.safetensors"]
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


def found_in(folder: Path, artifact_type: str, files: samples.Files) -> list[str]:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return problems(current(artifact_type), folder)


def changed(data: bytes, change) -> bytes:
    value = json.loads(data)
    change(value)
    return json.dumps(value).encode()


def test_every_rule_that_a_contract_names_is_known_and_every_known_rule_is_named():
    named: set[str] = set()
    for artifact_type in SHIPPED.artifact_types:
        named.update(current(artifact_type).rules)
    assert named == set(RULES) == set(contract_faults.RULES)


@pytest.mark.parametrize(
    ("artifact_type", "files"),
    [
        ("tokenizer", samples.tokenizer()),
        ("checkpoint", samples.checkpoint()),
        ("checkpoint", samples.checkpoint(samples.CONFIG | {"tie_word_embeddings": False})),
        ("checkpoint", samples.checkpoint(samples.CONFIG | {"model_type": "qwen3"})),
        ("checkpoint", samples.checkpoint(samples.MIXTURE)),
    ],
)
def test_sound_bundles_have_no_problems(artifact_type, files, tmp_path):
    assert found_in(tmp_path, artifact_type, files) == []


@pytest.mark.parametrize("artifact_type", ["tokenizer", "checkpoint"])
def test_every_required_file_is_missed_by_name(artifact_type, tmp_path):
    whole = getattr(samples, artifact_type)()
    for rule in current(artifact_type).files:
        if rule.required:
            files = {name: data for name, data in whole.items() if not rule.matches(name)}
            assert found_in(tmp_path / rule.name, artifact_type, files) == [
                f"file {rule.glob} is missing"
            ]


@pytest.mark.parametrize(
    "stray",
    [
        "model.bin",
        "sub/model.safetensors",
        "metrics/sub/part-00000.parquet",
        ".hidden",
        "tokenizer.json~",
    ],
)
def test_a_file_that_no_rule_allows_is_reported(stray, tmp_path):
    assert found_in(tmp_path, "checkpoint", samples.checkpoint() | {stray: b""}) == [
        f"file {stray} is not in the contract"
    ]


def test_links_are_reported_whether_to_a_file_or_to_a_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w").write_bytes(WEIGHTS)
    folder = tmp_path / "artifact"
    found_in(folder, "checkpoint", samples.checkpoint())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere" / "w")
    assert problems(current("checkpoint"), folder) == [
        "file 'model.safetensors' is not a plain file with a plain name"
    ]
    (folder / "metrics").symlink_to(tmp_path / "elsewhere")
    assert "file metrics is not in the contract" in problems(current("checkpoint"), folder)


TOKENIZER = [
    (lambda t: t["model"].update(type="Unigram"), "model is Unigram, wanted BPE"),
    (
        lambda t: t["pre_tokenizer"]["pretokenizers"][0]["pattern"].update(Regex=r"\w+"),
        "the split pattern is not that of Llama 3",
    ),
    (
        lambda t: t["model"]["vocab"].pop("A"),
        "ids are not 0..n-1; tokenizer.json: not every byte has a token",
    ),
    (lambda t: t["model"]["vocab"].update({"new": 999}), "ids are not 0..n-1"),
    (lambda t: t["model"]["vocab"].update({"new": 7}), "ids are not 0..n-1"),
    (lambda t: t.pop("model"), "tokenizer_is_byte_level_bpe: KeyError"),
    (lambda t: t.update(model=[]), "tokenizer_is_byte_level_bpe: TypeError"),
]


@pytest.mark.parametrize(("change", "message"), TOKENIZER)
def test_a_tokenizer_that_llama_cpp_would_not_take_is_reported(change, message, tmp_path):
    files = samples.tokenizer()
    found = found_in(
        tmp_path, "tokenizer", files | {"tokenizer.json": changed(files["tokenizer.json"], change)}
    )
    assert message in "; ".join(found)


@pytest.mark.parametrize("key", ["bos_token", "eos_token", "pad_token"])
def test_special_tokens_must_be_special_in_the_tokenizer_too(key, tmp_path):
    files = samples.tokenizer()
    settings = changed(files["tokenizer_config.json"], lambda s: s.update({key: "A"}))
    assert found_in(tmp_path, "tokenizer", files | {"tokenizer_config.json": settings}) == [
        f"tokenizer_config.json: {key} 'A' is not a special token"
    ]


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"model": 1, "model": 2}', b"\xff\xfe", b"[" * 100_000]
)
def test_a_tokenizer_file_that_is_no_json_object_is_reported_and_never_raises(data, tmp_path):
    assert found_in(tmp_path, "tokenizer", samples.tokenizer() | {"tokenizer.json": data})


CHECKPOINT = [
    (lambda w: w.pop(Q_PROJ), f"tensor {Q_PROJ} is missing"),
    (
        lambda w: w.update({Q_PROJ: np.zeros((8, 9), np.float16)}),
        f"tensor {Q_PROJ} has shape [8, 9], config.json calls for [8, 8]",
    ),
    (
        lambda w: w.update({"model.extra": np.zeros(3, np.float16)}),
        "tensor model.extra is not called for by config.json",
    ),
    (
        lambda w: w.update({"lm_head.weight": w["model.embed_tokens.weight"]}),
        "tensor lm_head.weight is not called for by config.json",
    ),
]


@pytest.mark.parametrize(("change", "message"), CHECKPOINT)
def test_tensors_must_be_those_that_the_config_calls_for(change, message, tmp_path):
    tensors = samples.weights()
    change(tensors)
    assert found_in(
        tmp_path, "checkpoint", samples.checkpoint() | {"model.safetensors": save(tensors)}
    ) == [message]


CONFIGS = [
    ({"vocab_size": samples.VOCABULARY - 1}, "the tokenizer has 258 tokens, the model 257"),
    ({"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, wanted 1..10000"),
    (
        {
            "model_type": "qwen3_moe",
            "num_hidden_layers": 10_000,
            "num_experts": 10_000,
            "moe_intermediate_size": 8,
        },
        "num_experts is 10000, wanted 1..10",
    ),
    ({"num_attention_heads": 0}, "num_attention_heads is 0, wanted 1.."),
    ({"hidden_size": "8"}, "hidden_size is '8', wanted 1.."),
    ({"hidden_size": None}, "hidden_size is None, wanted 1.."),
    ({"model_type": "gpt2"}, "model_type 'gpt2' is none of llama, qwen3, qwen3_moe"),
]


@pytest.mark.parametrize(("change", "message"), CONFIGS)
def test_a_config_that_does_not_fit_is_reported(change, message, tmp_path):
    config = json.dumps(samples.CONFIG | change).encode()
    assert message in "; ".join(
        found_in(tmp_path, "checkpoint", samples.checkpoint() | {"config.json": config})
    )


def test_weights_in_several_files_need_an_index_that_is_right(tmp_path):
    tensors = samples.weights()
    names = sorted(tensors)
    parts = {"model-00001.safetensors": names[:5], "model-00002.safetensors": names[5:]}
    files = {
        name: data for name, data in samples.checkpoint().items() if name != "model.safetensors"
    }
    files |= {
        file: save({name: tensors[name] for name in inside}) for file, inside in parts.items()
    }
    assert found_in(tmp_path / "a", "checkpoint", files) == [
        "model.safetensors.index.json is missing, and the weights are in 2 files"
    ]
    places = {name: file for file, inside in parts.items() for name in inside}
    index = "model.safetensors.index.json"
    assert (
        found_in(
            tmp_path / "b",
            "checkpoint",
            files | {index: json.dumps({"weight_map": places}).encode()},
        )
        == []
    )
    places[names[0]] = "model-00002.safetensors"
    assert found_in(
        tmp_path / "c", "checkpoint", files | {index: json.dumps({"weight_map": places}).encode()}
    ) == [f"{index}: weight_map does not say where the tensors are"]
    twice = files | {"model-00003.safetensors": save({names[0]: tensors[names[0]]})}
    assert found_in(tmp_path / "d", "checkpoint", twice) == [
        f"model-00003.safetensors: tensor {names[0]} is in model-00001.safetensors too"
    ]


ONE = {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
HEADERS = {
    "empty file": (b"", "claims"),
    "no header": (b"\x08\0\0", "claims"),
    "a header longer than the file": (samples.safetensors(ONE, b"\0" * 8, length=2**63), "claims"),
    "a header of 200 MB": (
        samples.safetensors(ONE, b"\0" * 8, length=200_000_000),
        "claims 200,000,000 bytes",
    ),
    "no JSON": (samples.safetensors(b"{{{"), "cannot be read"),
    "JSON that is no object": (samples.safetensors([1, 2]), "cannot be read"),
    "a deep nest": (samples.safetensors(b"[" * 100_000), "cannot be read: it is nested too deeply"),
    "a name twice": (samples.safetensors(b'{"t":{},"t":{}}'), "a key occurs twice among t, t"),
    "a field twice": (
        samples.safetensors(b'{"t":{"dtype":"F32","dtype":"F16","shape":[4]}}'),
        "a key occurs twice",
    ),
    "an unknown dtype": (
        samples.safetensors({"t": ONE["t"] | {"dtype": "F7"}}, b"\0" * 8),
        "dtype 'F7' is not known",
    ),
    "a negative shape": (
        samples.safetensors({"t": ONE["t"] | {"shape": [-1, -2]}}, b"\0" * 8),
        "not whole numbers",
    ),
    "a broken shape": (
        samples.safetensors({"t": ONE["t"] | {"shape": [2.0]}}, b"\0" * 8),
        "not whole numbers",
    ),
    "a shape too large": (
        samples.safetensors({"t": ONE["t"] | {"shape": [2**62, 4]}}, b"\0" * 8),
        "does not fit its shape",
    ),
    "offsets before the start": (
        samples.safetensors({"t": ONE["t"] | {"data_offsets": [-8, 0]}}, b"\0" * 8),
        "not whole numbers",
    ),
    "a gap": (
        samples.safetensors({"t": ONE["t"] | {"data_offsets": [8, 16]}}, b"\0" * 16),
        "lies at 8..16",
    ),
    "an overlap": (
        samples.safetensors(ONE | {"u": ONE["t"] | {"data_offsets": [4, 12]}}, b"\0" * 12),
        "tensor u lies at 4..12",
    ),
    "the same bytes twice": (samples.safetensors(ONE | {"u": ONE["t"]}, b"\0" * 8), "does not fit"),
    "bytes at the end": (samples.safetensors(ONE, b"\0" * 9), "the file at"),
    "a cut tensor": (samples.safetensors(ONE, b"\0" * 7), "the file at"),
}


@pytest.mark.parametrize("attack", HEADERS)
def test_a_crafted_safetensors_header_is_refused(attack, tmp_path):
    data, message = HEADERS[attack]
    (tmp_path / "w.safetensors").write_bytes(data)
    _, problem = safetensors_header(tmp_path / "w.safetensors")
    assert problem is not None
    assert message in problem
    files = samples.checkpoint() | {"model.safetensors": data}
    assert found_in(tmp_path / "artifact", "checkpoint", files) == [f"model.safetensors: {problem}"]


def test_token_ids_at_or_above_the_vocabulary_are_reported(publish):
    rows = good_rows(current("token_shards"), "train", 3)
    rows[1]["tokens"] = [samples.VOCABULARY - 1]
    publish("token_shards", train=rows, files={"tokenizer.sha256": samples.digest_line()})
    rows[1]["tokens"] = [1, samples.VOCABULARY]
    with pytest.raises(
        ContractError,
        match=r"train/part-00000.parquet row group 0: token id 258, the vocabulary has 258",
    ):
        publish("token_shards", train=rows, files={"tokenizer.sha256": samples.digest_line()})
    with pytest.raises(
        ContractError, match=r"wanted '<sha256 of tokenizer.json> <vocabulary size>'"
    ):
        publish("token_shards", train=rows, files={"tokenizer.sha256": b"abc"})


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "é"])
    writer.add_array("tokenizer.ggml.scores", [0.5, 1.5])
    writer.add_context_length(64)
    writer.add_tensor("a.weight", np.ones((4, 32), np.float16))
    quantized = gguf.quantize(np.ones((2, 64), np.float32), gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("b.weight", quantized, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def test_a_gguf_is_read_to_its_last_byte(model, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(model)
    assert gguf_problem(path) is None
    payload = len(model) - len(model) % 32  # the writer pads the end
    for size in [*range(0, 700, 7), len(model) // 2, payload - 200]:
        path.write_bytes(model[:size])
        assert gguf_problem(path) is not None, size


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, b"GGML", "not GGUF version 3"),
        (4, b"\x02", "not GGUF version 3"),
        (8, b"\0", "claims 0 tensors"),
        (15, b"\xff", "tensors and"),
        (23, b"\xff", "settings in"),
        (31, b"\x7f", "a text of"),
    ],
)
def test_a_gguf_header_that_lies_is_refused(model, at, data, message, tmp_path):
    path = tmp_path / "m.gguf"
    path.write_bytes(model[:at] + data + model[at + len(data) :])
    assert message in str(gguf_problem(path))
