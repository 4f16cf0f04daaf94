"""Untrusted checkpoints and GGUF files give one named error before anything is allocated."""

from __future__ import annotations

import struct
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

import stages
from data_contracts import Artifact, ArtifactError, ContractError, bundles
from data_contracts.tensor_files import gguf_header, gguf_problem
from stages.export_gguf import architecture
from stages.export_gguf.vocabulary import Vocabulary, read_vocabulary
from stages.llama_cpp.chat import affordable_context, loaded
from stages.lm import transformers_model
from stages.lm.chat import ChatFormat
from stages.lm.checkpoint import load_config, load_model, require_weights
from stages.lm.tokenizer import ModelTokenizer
from stages.run import run_stage
from tests.checkpoints import METRICS, tiny_checkpoint
from tests.security.gguf_files import gguf_file, setting, tensor, text
from tests.security.hostile_checkpoints import (
    CONFIG_DAMAGES,
    CONTRACT_DAMAGES,
    EVERY,
    TOKENIZER_DAMAGES,
    WEIGHTS_DAMAGES,
    json_file,
)

READERS = {
    stage.name
    for stage in stages.STAGES
    if "checkpoint" in [consumed.artifact_type for consumed in stage.consumes]
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a valid checkpoint."""
    from data_contracts import Store
    from tests.conftest import publisher

    made = tiny_checkpoint(publisher(Store(tmp_path_factory.mktemp("sound") / "store")))
    return {
        file.path: (made.path / file.path).read_bytes()
        for file in made.manifest.files
        if not file.path.startswith("metrics/")
    }


def spoilt(sound: dict[str, bytes], damage: str) -> dict[str, bytes]:
    files = dict(sound)
    EVERY[damage](files)
    return files


def in_folder(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def chat_format(folder: Path) -> ChatFormat:
    return ChatFormat(ModelTokenizer(folder))


def vocabulary(folder: Path) -> Vocabulary:
    return read_vocabulary(ModelTokenizer(folder))


WEIGHT_READERS = (load_model, require_weights, transformers_model.load)
CONFIG_READERS = (load_config, load_model, architecture.read_config, transformers_model.load)
TOKENIZER_READERS = (chat_format, vocabulary, transformers_model.load)


@pytest.mark.slow
@pytest.mark.parametrize("damage", WEIGHTS_DAMAGES)
def test_bad_weights_are_one_error_in_everything_that_reads_them(sound, tmp_path, damage):
    folder = in_folder(spoilt(sound, damage), tmp_path / "checkpoint")
    for read in WEIGHT_READERS:
        with pytest.raises(ArtifactError) as error:
            read(folder)
        assert len(str(error.value)) < 3000


@pytest.mark.slow
@pytest.mark.parametrize("damage", CONFIG_DAMAGES)
def test_a_bad_config_is_one_error_in_everything_that_reads_it(sound, tmp_path, damage):
    folder = in_folder(spoilt(sound, damage), tmp_path / "checkpoint")
    for read in CONFIG_READERS:
        with pytest.raises((ArtifactError, ContractError)) as error:
            read(folder)
        assert len(str(error.value)) < 3000


@pytest.mark.slow
@pytest.mark.parametrize("damage", TOKENIZER_DAMAGES)
def test_a_bad_tokenizer_is_one_error_in_everything_that_reads_it(sound, tmp_path, damage):
    folder = in_folder(spoilt(sound, damage), tmp_path / "checkpoint")
    for read in TOKENIZER_READERS:
        with pytest.raises(ArtifactError) as error:
            read(folder)
        assert len(str(error.value)) < 3000


@pytest.mark.parametrize("damage", ["a tokenizer that was cut", "a slow pattern", "no tokenizer"])
def test_pack_says_so_too(sound, tmp_path, damage):
    from stages.pack.encode import encoder

    folder = in_folder(spoilt(sound, damage), tmp_path / "tokenizer")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        encoder(folder / "tokenizer.json")


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["x", [1.5], [10**9], -1, {"a": 1}, True])
def test_ends_of_answers_that_are_no_tokens_are_one_error(sound, tmp_path, ends):
    files = dict(sound)
    json_file("generation_config.json", eos_token_id=ends)(files)
    folder = in_folder(files, tmp_path / "checkpoint")
    for read in (vocabulary, transformers_model.load):
        with pytest.raises(ArtifactError, match=r"generation_config\.json"):
            read(folder)


SMALL = """
import resource, sys, torch
from pathlib import Path
from data_contracts import ArtifactError
from stages.lm import transformers_model
from stages.lm.checkpoint import load_model
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), used + (1 << 30)))
for read in (load_model, transformers_model.load):
    try:
        read(Path(sys.argv[1]))
    except ArtifactError as error:
        print(error.what)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    ["an absurd width", "an absurd vocabulary", "a header longer than the file", "an absurd shape"],
)
def test_no_size_that_a_checkpoint_claims_is_allocated(sound, tmp_path, damage):
    """An absurd config asks for hundreds of gigabytes; the process may allocate one more."""
    folder = in_folder(spoilt(sound, damage), tmp_path / "checkpoint")
    done = subprocess.run(
        [sys.executable, "-c", SMALL, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"checkpoint {folder}"] * 2


@pytest.mark.slow
def test_nothing_of_a_checkpoint_is_run_by_transformers(sound, tmp_path, monkeypatch):
    files = dict(sound)
    mark = tmp_path / "owned"
    program = f"open({str(mark)!r}, 'w').close()\n"
    auto = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForCausalLM"), "modeling_evil.Evil")
    json_file(
        "config.json",
        auto_map=auto,
        trust_remote_code=True,
        custom_generate="evil",
        torch_dtype="evil",
    )(files)
    json_file(
        "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["modeling_evil.Evil", None]},
        tokenizer_class="Evil",
    )(files)
    json_file(
        "generation_config.json",
        custom_generate="custom_generate.py",
        trust_remote_code=True,
        max_new_tokens=10**9,
    )(files)
    files |= {"modeling_evil.py": program.encode(), "custom_generate.py": program.encode()}
    folder = in_folder(files, tmp_path / "checkpoint")
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(
        program + "def generate(*_, **__):\n    pass\n"
    )
    model, tokenizer = transformers_model.load(folder)
    assert type(model).__module__.startswith("transformers.models.llama")
    assert type(tokenizer) is PreTrainedTokenizerFast
    assert model.generation_config.max_new_tokens is None
    assert not mark.exists()


def hostile(publish: Any, monkeypatch: Any, files: dict[str, bytes]) -> Artifact:
    """An artifact whose manifest agrees with its files, made without groundup's checks."""
    with monkeypatch.context() as patch:
        patch.setattr(bundles, "problems", lambda *_, **__: [])
        return publish("checkpoint", files=files, metrics=METRICS)


def entered(*_: Any, **__: Any) -> None:
    raise AssertionError("the stage was entered")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft", "dpo", "evaluate", "export_gguf", "collect_preferences"])
def test_every_stage_refuses_a_hostile_checkpoint_with_one_error(
    name, sound, publish, store, monkeypatch
):
    golden = import_module(f"tests.golden.{name}")
    stage = stages.stage(name)
    config = stage.config_class.parse(golden.SETTINGS, name)
    given = golden.inputs(publish)
    for damage in EVERY:
        bad = hostile(publish, monkeypatch, spoilt(sound, damage))
        bad.verify()  # its manifest is valid
        for wanted in [one for one in stage.consumes if one.artifact_type == "checkpoint"]:
            with pytest.raises((ContractError, ArtifactError)) as error:
                run_stage(store, stage, config, given | {wanted.name: bad})
            by_contract = f"artifact {bad} (contract " in str(error.value)
            assert by_contract or damage not in CONTRACT_DAMAGES | WEIGHTS_DAMAGES


def test_those_are_all_stages_that_run_a_checkpoint():
    assert READERS - {"describe"} == {
        "sft",
        "dpo",
        "evaluate",
        "export_gguf",
        "collect_preferences",
    }


@pytest.mark.slow
def test_a_sound_checkpoint_passes(sound, publish, monkeypatch):
    hostile(publish, monkeypatch, sound).check_files()


ONE = tensor(b"t", [4])
GGUF_ATTACKS = {
    "nothing": b"",
    "three bytes": b"GGU",
    "another version": struct.pack("<4sIQQ", b"GGUF", 99, 1, 0),
    "many tensors": gguf_file(count=1 << 60),
    "no tensors": gguf_file(count=0),
    "many settings": gguf_file(claimed=1 << 60),
    "a long key": gguf_file(struct.pack("<Q", 1 << 60)),
    "a long text": gguf_file(setting(b"a", 8, struct.pack("<Q", 1 << 40))),
    "a long array": gguf_file(setting(b"a", 9, struct.pack("<IQ", 0, 1 << 60))),
    "a long array of texts": gguf_file(setting(b"a", 9, struct.pack("<IQ", 8, 1 << 60))),
    "arrays of arrays": gguf_file(setting(b"a", 9, struct.pack("<IQ", 9, 1))),
    "an unknown kind": gguf_file(setting(b"a", 77, b"")),
    "the same setting": gguf_file(
        setting(b"a", 0, b"1"), setting(b"a", 0, b"2"), tensors=ONE, data=b"\0" * 64
    ),
    "an alignment of nothing": gguf_file(
        setting(b"general.alignment", 4, struct.pack("<I", 0)), tensors=tensor(b"t", [1 << 40])
    ),
    "an alignment of texts": gguf_file(
        setting(b"general.alignment", 8, text(b"x")), tensors=ONE, data=b"\0" * 64
    ),
    "an absurd tensor": gguf_file(tensors=tensor(b"t", [1 << 62, 1 << 62])),
    "an empty tensor": gguf_file(tensors=tensor(b"t", [0])),
    "many dimensions": gguf_file(tensors=text(b"t") + struct.pack("<I", 1 << 30)),
    "an unknown type": gguf_file(tensors=tensor(b"t", [4], kind=999)),
    "an offset past the end": gguf_file(tensors=tensor(b"t", [4], offset=1 << 60), data=b"\0" * 64),
    "cut": gguf_file(tensors=ONE),
    "a name that is no text": gguf_file(tensors=tensor(b"\xff\xfe", [4]), data=b"\0" * 64),
}


@pytest.mark.parametrize("attack", GGUF_ATTACKS)
def test_a_bad_gguf_is_one_error_and_llama_cpp_is_not_started(tmp_path, attack, monkeypatch):
    monkeypatch.setattr("stages.llama_cpp.chat.subprocess.Popen", entered)
    path = tmp_path / "bad.gguf"
    path.write_bytes(GGUF_ATTACKS[attack])
    assert gguf_problem(path)
    with pytest.raises(ArtifactError, match=r"llama\.cpp cannot load it"), loaded(path):
        pass


@pytest.mark.parametrize("is_artifact", [True, False])
def test_only_an_artifact_with_a_bad_gguf_is_to_be_verified(tmp_path, is_artifact):
    path = tmp_path / "bad.gguf"
    path.write_bytes(GGUF_ATTACKS["no tensors"])
    if is_artifact:
        (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(ArtifactError) as error, loaded(path):
        pass
    assert ("groundup verify" in str(error.value)) == is_artifact
    assert ("fetch the file again" in str(error.value)) != is_artifact


def test_a_sound_header_is_read_and_so_these_attacks_fail_for_their_own_reasons(tmp_path):
    path = tmp_path / "good.gguf"
    path.write_bytes(
        gguf_file(
            setting(b"a", 4, struct.pack("<I", 7)),
            setting(b"b", 8, text(b"x")),
            tensors=ONE,
            data=b"\0" * 64,
        )
    )
    found = gguf_header(path)
    assert found.problem is None
    assert found.settings == {"a": 7, "b": "x"}


@pytest.mark.parametrize("value", [0, -1, "x", 1.5])
@pytest.mark.parametrize(
    "key", ["context_length", "block_count", "attention.head_count", "attention.key_length"]
)
def test_sizes_of_a_gguf_that_are_none_are_refused(tmp_path, key, value):
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_file(tensors=ONE, data=b"\0" * 64))
    header = gguf_header(path)
    header.settings |= {"general.architecture": "llama", f"llama.{key}": value}
    with pytest.raises(ArtifactError, match=rf"llama\.{key} is"):
        affordable_context(path, header, 1 << 30)


def test_an_absurd_context_of_a_gguf_is_cut_to_what_memory_holds_and_an_absurd_width_is_refused(
    tmp_path,
):
    path = tmp_path / "x.gguf"
    path.write_bytes(gguf_file(tensors=ONE, data=b"\0" * 64))
    header = gguf_header(path)
    sizes = {
        "context_length": 1 << 31,
        "block_count": 4,
        "attention.head_count": 4,
        "embedding_length": 64,
    }
    header.settings |= {"general.architecture": "llama"} | {
        f"llama.{key}": value for key, value in sizes.items()
    }
    tokens = affordable_context(path, header, 1 << 30)
    assert 0 < tokens < 1 << 31
    assert tokens * 4 * 64 * 2 * 2 <= 1 << 30
    header.settings["llama.block_count"] = 1 << 31
    with pytest.raises(ArtifactError, match="bytes of memory a token"):
        affordable_context(path, header, 1 << 30)
