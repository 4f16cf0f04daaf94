"""Whatever happens to the files of an artifact, `verify` finds it before use and names the file."""

from __future__ import annotations

import json
import shutil

import pytest

from data_contracts import Artifact, ArtifactError, current
from tests.data_contracts import bundle_samples as samples
from tests.data_contracts.samples import good_rows

PARQUET, JSON, TENSORS = "metrics/part-00000.parquet", "config.json", "model.safetensors"


@pytest.fixture
def artifact(publish) -> Artifact:
    return publish(
        "checkpoint",
        files=samples.checkpoint(),
        metrics=good_rows(current("checkpoint"), "metrics", 50),
    )


@pytest.mark.parametrize("name", [PARQUET, JSON, TENSORS])
def test_a_file_cut_anywhere_is_found(artifact, name):
    path = artifact.path / name
    data = path.read_bytes()
    for size in (0, 3, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(
            ArtifactError, match=rf"{name} has {size:,} bytes, the manifest says {len(data):,}"
        ):
            artifact.verify()
    path.write_bytes(data)
    artifact.verify()


@pytest.mark.parametrize("name", [PARQUET, JSON, TENSORS])
def test_one_flipped_bit_anywhere_is_found(artifact, name):
    path = artifact.path / name
    data = path.read_bytes()
    for at in (0, 3, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(
            ArtifactError, match=rf"{name} does not have the sha256 of the manifest"
        ):
            artifact.verify()


def test_missing_stray_and_linked_files_are_all_reported_at_once(artifact, tmp_path):
    (artifact.path / JSON).unlink()
    (artifact.path / "metrics" / "part-00001.parquet").write_bytes(b"")
    (artifact.path / ".stray").symlink_to("/")
    weights = artifact.path / TENSORS
    weights.rename(tmp_path / "weights")
    weights.symlink_to(tmp_path / "weights")
    with pytest.raises(ArtifactError) as error:
        artifact.verify()
    for part in (
        f"{JSON} is missing",
        "metrics/part-00001.parquet is not in the manifest",
        ".stray is not in the manifest",
        f"{TENSORS} is a link",
    ):
        assert part in error.value.why
    assert f"mv -n {artifact.path}/.stray ./.stray.moved-aside-" in error.value.fix
    assert (
        f"groundup rm {artifact}   (keeps it aside)   then groundup stage test --name NAME"
        in error.value.fix
    )
    assert "making it took 0 s" in error.value.fix


def test_what_cannot_be_read_is_reported_like_other_damage(artifact, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("data_contracts.store.artifact.sha256", refuse)
    monkeypatch.setattr("data_contracts.store.artifact.listing", refuse)
    with pytest.raises(
        ArtifactError,
        match=rf"its folder cannot be read: .*{JSON} cannot be read: Permission denied",
    ):
        artifact.verify()
    monkeypatch.setattr("data_contracts.store.artifact.read_bounded", refuse)
    with pytest.raises(
        ArtifactError, match=r"its manifest.json cannot be read: .*Permission denied"
    ):
        Artifact.at(artifact.path)


def test_a_folder_that_became_a_link_is_found_though_its_files_are_right(artifact, tmp_path):
    shutil.move(artifact.path / "metrics", tmp_path / "metrics")
    (artifact.path / "metrics").symlink_to(tmp_path / "metrics")
    with pytest.raises(ArtifactError, match=f"{PARQUET} is a link"):
        artifact.verify()


def test_files_of_two_artifacts_that_were_swapped_are_found(publish, artifact):
    other = publish(
        "checkpoint", files=samples.checkpoint(samples.CONFIG | {"model_type": "qwen3"})
    )
    shutil.copy(other.path / JSON, artifact.path / JSON)
    with pytest.raises(ArtifactError, match=JSON):
        artifact.verify()


def test_an_artifact_under_another_id_is_refused(store, artifact):
    moved = "0" * 24
    shutil.move(artifact.path, artifact.path.with_name(moved))
    with pytest.raises(ArtifactError, match="it was moved"):
        store.open("checkpoint", moved)
    with pytest.raises(ArtifactError, match="does not exist or was never finished"):
        store.open("checkpoint", artifact.id)


def edit(change):
    def apply(data: bytes) -> bytes:
        manifest = json.loads(data)
        change(manifest)
        return json.dumps(manifest).encode()

    return apply


MANIFESTS = {
    "nothing": lambda data: b"",
    "half": lambda data: data[: len(data) // 2],
    "not JSON": lambda data: b"{{{",
    "not UTF-8": lambda data: b"\xff" + data,
    "another shape": lambda data: b"[1, 2]",
    "a deep nest": lambda data: b"[" * 100_000,
    "a key twice": lambda data: data.replace(
        b'{\n "groundup"', b'{\n "artifact_type": "tokenizer",\n "groundup"'
    ),
    "a field less": edit(lambda m: m.pop("files")),
    "a path that leads out": edit(lambda m: m["files"][0].update(path="../../../etc/passwd")),
    "an absolute path": edit(lambda m: m["files"][0].update(path="/etc/passwd")),
    "a file twice": edit(lambda m: m["files"].append(m["files"][0])),
    "a digest that is none": edit(lambda m: m["files"][0].update(sha256="0")),
    "a negative size": edit(lambda m: m["files"][0].update(bytes=-1)),
    "an id that is a path": edit(lambda m: m.update(id="../x")),
}


@pytest.mark.parametrize("garbage", MANIFESTS)
def test_a_manifest_that_is_not_one_is_refused(store, artifact, garbage):
    path = artifact.path / "manifest.json"
    path.write_bytes(MANIFESTS[garbage](path.read_bytes()))
    with pytest.raises(ArtifactError, match=r"its manifest.json cannot be read"):
        store.open("checkpoint", artifact.id)


def test_a_manifest_of_a_newer_release_that_says_more_is_read(store, artifact):
    path = artifact.path / "manifest.json"
    path.write_bytes(
        edit(lambda m: (m.update(more=1), m["files"][0].update(more=1)))(path.read_bytes())
    )
    assert store.open("checkpoint", artifact.id).manifest == artifact.manifest


def test_a_damaged_artifact_is_not_reused_and_not_silently_replaced(store, artifact, publish):
    (artifact.path / JSON).write_bytes(b"{}")
    with pytest.raises(ArtifactError, match=r"config.json"):
        publish(
            "checkpoint",
            files=samples.checkpoint(),
            metrics=good_rows(current("checkpoint"), "metrics", 50),
        )
    shutil.rmtree(artifact.path)
    again = publish(
        "checkpoint",
        files=samples.checkpoint(),
        metrics=good_rows(current("checkpoint"), "metrics", 50),
    )
    assert again.manifest.content == artifact.manifest.content


def test_rows_that_someone_changed_together_with_the_manifest_are_found_by_the_check(artifact):
    from data_contracts import ContractError

    path = artifact.path / JSON
    path.write_bytes(path.read_bytes().replace(b'"hidden_size": 8', b'"hidden_size": 9'))
    with pytest.raises(
        ContractError, match=r"has shape \[258, 8\], config.json calls for \[258, 9\]"
    ) as error:
        artifact.check()
    assert error.value.fix.startswith(f"make it again: groundup rm {artifact}")
