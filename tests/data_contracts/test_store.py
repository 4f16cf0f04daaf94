"""Publishing, reading back, finding, naming."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts import ArtifactError, ConfigError, ContractError, current
from data_contracts.contract import STAMP
from data_contracts.store.refs import RecipeRef, Refs
from tests.data_contracts import publishing
from tests.data_contracts.samples import good_rows

CHAT = {
    "id": "0" * 32,
    "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}],
    "kind": "user",
    "split": "train",
    "url": "file:///a#1",
}


def test_what_was_published_is_read_back_unchanged(publish):
    artifact = publish("conversations", conversations=[CHAT])
    assert artifact.read("conversations").to_pylist() == [CHAT | {"document": None}]
    assert artifact.rows("rejects") == 0
    assert artifact.read("rejects").num_rows == 0
    artifact.verify()
    assert artifact.check() == 1


def test_a_violation_names_column_rule_file_and_row_and_publishes_nothing(publish, store):
    bad = CHAT | {"id": "1" * 32, "split": "test", "messages": CHAT["messages"][:1]}
    with pytest.raises(ContractError) as error:
        publish("conversations", conversations=[CHAT, bad, CHAT])
    message = str(error.value)
    assert (
        "part-00000.parquet row 1: conversations.split breaks enum: "
        "'test' is none of train, heldout" in message
    )
    assert "row 1: conversations.messages breaks minItems" in message
    assert "row 2: conversations.id breaks unique" in message
    assert not list((store.root / "objects").glob("*/*"))


def test_the_contract_is_stamped_in_every_footer_and_in_the_manifest(publish):
    artifact = publish("conversations", conversations=[CHAT])
    assert artifact.manifest.contract == str(current("conversations").version)
    for path in (*artifact.table_paths("conversations"), *artifact.table_paths("rejects")):
        stamp = pq.read_schema(path).metadata[STAMP].decode()
        assert stamp == f"conversations/{path.parent.name} {current('conversations').version}"


def test_columns_are_read_in_the_order_asked_and_unknown_ones_are_refused(publish):
    artifact = publish("conversations", conversations=[CHAT])
    assert artifact.read("conversations", ["url", "id"]).column_names == ["url", "id"]
    for call in (
        lambda: artifact.read("conversations", ["txt"]),
        lambda: list(artifact.batches("conversations", ["txt"])),
    ):
        with pytest.raises(ContractError, match=r"no column 'conversations.txt'"):
            call()
    for call in (
        lambda: artifact.rows("chats"),
        lambda: artifact.read("chats"),
        lambda: artifact.files("weights"),
    ):
        with pytest.raises(ContractError, match=r"its contract has no (table|file) '\w+'"):
            call()


def test_shards_are_read_in_their_order_whatever_order_they_were_written_in(store):
    def make(draft):
        for shard in (10, 2, 0):
            with draft.writer("failures", shard) as writer:
                writer.write(
                    row | {"depth": shard}
                    for row in good_rows(current("raw_documents"), "failures", 3)
                )
        return {}

    artifact, _ = store.publish(
        "raw_documents", publishing.identity("raw_documents", {}), {}, {}, make
    )
    assert artifact.read("failures", ["depth"])["depth"].to_pylist() == [
        0,
        0,
        0,
        2,
        2,
        2,
        10,
        10,
        10,
    ]
    assert artifact.rows("failures") == 9


@pytest.mark.parametrize("kind", ["dicts", "table", "batches"])
def test_rows_may_come_as_dicts_a_table_or_batches(store, kind):
    rows = good_rows(current("conversations"), "conversations", 10)
    loose = pa.Table.from_pylist(rows)  # without the contract's "never null"
    loose = loose.set_column(
        1,
        "messages",
        loose["messages"].cast(
            pa.list_(pa.struct({"role": pa.string(), "content": pa.large_string()}))
        ),
    )

    def make(draft):
        with draft.writer("conversations") as writer:
            for given in {
                "dicts": [rows[:4], rows[4:]],
                "table": [loose],
                "batches": loose.to_batches(3),
            }[kind]:
                writer.write(given)
        assert writer.rows == 10
        return {}

    artifact, _ = store.publish(
        "conversations", publishing.identity("conversations", {}), {}, {}, make
    )
    assert artifact.read("conversations").to_pylist() == rows


def test_what_a_writer_cannot_hold_is_refused_at_once(store):
    def refused(message, write):
        with pytest.raises(ContractError, match=message):
            store.publish(
                "raw_documents",
                publishing.identity("raw_documents", {"message": message}),
                {},
                {},
                write,
            )

    def twice(draft):
        draft.write("failures", [])
        draft.write("failures", [])

    row = good_rows(current("raw_documents"), "failures", 1)[0]
    refused("failures/part-00000.parquet is written twice", twice)
    refused(
        "the contract has no columns 'colour'",
        lambda draft: draft.write("failures", [row | {"colour": 1}]),
    )
    refused(
        "failures.url is not string: .*surrogates",
        lambda draft: draft.write("failures", [row | {"url": "\ud800"}]),
    )
    refused(
        "column 'url' is int64, wanted string",
        lambda draft: draft.write("failures", pa.table({"url": [1]})),
    )
    refused("has no table 'pages'", lambda draft: draft.writer("pages"))
    refused(r"is not in 0\.\.99999", lambda draft: draft.writer("failures", 100_000))
    for path in (
        "../x",
        "/etc/x",
        "a/../b",
        "a//b",
        "",
        "a\0b",
        "a\nb",
        "manifest.json",
        "x" * 300,
        "a\\b",
        "a\u202eb",
    ):
        refused("is not a plain relative path", lambda draft, path=path: draft.path(path))


def test_facts_that_are_no_json_are_refused_and_nothing_is_published(store):
    with pytest.raises(ContractError, match="facts of stage test"):
        store.publish(
            "raw_documents",
            publishing.identity("raw_documents", {}),
            {},
            {},
            lambda draft: {"n": np.int64(3)},
        )
    assert store.ids() == []


@pytest.mark.slow
def test_row_groups_stay_near_32_mb_and_batches_near_64_however_long_the_rows(store):
    def make(draft):
        with draft.writer("failures") as writer:
            for number in range(60):
                writer.write(
                    [
                        good_rows(current("raw_documents"), "failures", 1)[0]
                        | {"detail": os.urandom(1 << 20).hex(), "depth": number}
                    ]
                )
        return {}

    artifact, _ = store.publish(
        "raw_documents", publishing.identity("raw_documents", {}), {}, {}, make
    )
    (path,) = artifact.table_paths("failures")
    metadata = pq.read_metadata(path)
    assert (
        max(metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups))
        < 40 << 20
    )
    sizes = [batch.nbytes for batch in artifact.batches("failures")]
    assert sum(sizes) > 120 << 20
    assert max(sizes) < 70 << 20


@pytest.mark.slow
def test_batches_stay_under_64_mb_though_the_file_holds_a_text_once_that_all_rows_repeat(store):
    row = good_rows(current("raw_documents"), "failures", 1)[0] | {"detail": "x" * (1 << 16)}

    def make(draft):
        with draft.writer("failures") as writer:
            for _ in range(40):
                writer.write([row] * 80)
        return {}

    artifact, _ = store.publish(
        "raw_documents", publishing.identity("raw_documents", {}), {}, {}, make
    )
    sizes = [batch.nbytes for batch in artifact.batches("failures")]
    assert sum(sizes) > 200 << 20
    assert max(sizes) < 64 << 20


def test_every_row_that_came_in_is_found_again_once_at_commit(publish, store):
    contract = current("clean_documents")
    source = publish("raw_documents", documents=good_rows(current("raw_documents"), "documents", 5))
    ids = source.read("documents", ["id"])["id"].to_pylist()

    def clean(kept: list[str], rejected: list[str], inputs: dict):
        def make(draft):
            for table, chosen in (("documents", kept), ("rejects", rejected)):
                rows = good_rows(contract, table, len(chosen))
                draft.write(
                    table, [row | {"id": key} for row, key in zip(rows, chosen, strict=True)]
                )
            return {}

        identity = publishing.identity(
            "clean_documents",
            {"kept": kept, "rejected": rejected},
            **{name: one.id for name, one in inputs.items()},
        )
        return store.publish("clean_documents", identity, inputs, {}, make)

    given = {"raw_documents": source}
    for kept, rejected, counts in (
        (
            ids[:2],
            ids[3:],
            r"2 documents \+ 2 rejects = 4 went out: 1 lost, 0 made up, 0 there again",
        ),
        (
            ids[:3],
            ids[2:4],
            r"3 documents \+ 2 rejects = 5 went out: 1 lost, 0 made up, 1 there again",
        ),
        (
            ids[:3],
            [ids[3], "f" * 32],
            r"3 documents \+ 2 rejects = 5 went out: 1 lost, 1 made up, 0 there again",
        ),
    ):
        with pytest.raises(
            ContractError, match=r"5 rows of raw_documents.documents came in, " + counts
        ):
            clean(kept, rejected, given)
    with pytest.raises(ContractError, match="must be conserved, and no raw_documents came in"):
        clean(ids[:3], ids[3:], {})
    artifact, made = clean(ids[2:], ids[:2], given)
    assert made
    assert artifact.manifest.inputs["raw_documents"].id == source.id


def test_an_artifact_is_found_by_name_by_id_and_by_the_beginning_of_its_id(publish, store):
    artifact = publish("conversations", conversations=[CHAT])
    other = publish("conversations", conversations=[])
    assert store.point("demo", "conversations", artifact, "run-1")
    for reference in (
        "demo/conversations",
        artifact.id,
        artifact.id[:12],
        f"conversations/{artifact.id}",
        f"conversations/{artifact.id[:8]}",
    ):
        assert store.find(reference, verify=True).id == artifact.id
    assert store.ids() == sorted([("conversations", artifact.id), ("conversations", other.id)])


NEITHER = "is neither a run nor an artifact of /"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("demo/tokenizer", "choose from: demo/conversations"),
        ("demo", "is a run, and one artifact of it is wanted"),
        ("other/tokenizer", "choose from: demo"),
        ("abcdef", NEITHER),
        ("tokenizer/{id}", NEITHER),
        ("", NEITHER),
        ("../../etc/passwd", NEITHER),
        ("demo/../conversations", NEITHER),
        ("demo/", NEITHER),
        ("Demo/tokenizer", NEITHER),
        ("a" * 300 + "/b", NEITHER),
        ("démo/b", NEITHER),
        ("demo\0/b", NEITHER),
        ("*/conversations", NEITHER),
    ],
)
def test_a_reference_that_means_nothing_is_reported_with_what_there_is(
    publish, store, reference, message
):
    artifact = publish("conversations", conversations=[CHAT])
    store.point("demo", "conversations", artifact, "run-1")
    with pytest.raises(ConfigError, match=message):
        store.resolve(reference.format(id=artifact.id))


def test_the_beginning_of_two_ids_is_reported_with_both(store, publish):
    folders = [
        publish("conversations", conversations=[CHAT | {"id": f"{n:032x}"}]).path for n in range(2)
    ]
    for folder in folders:  # two folders whose ids begin alike
        folder.rename(folder.with_name("abcdef" + folder.name[6:]))
    with pytest.raises(ConfigError, match="2 ids begin so"):
        store.resolve("abcdef")


def test_a_name_keeps_what_it_meant_before(publish, store):
    one, other = (
        publish("conversations", conversations=[CHAT]),
        publish("conversations", conversations=[]),
    )
    assert store.point("demo", "chats", one, "run-1")
    assert not store.point("demo", "chats", one, "run-2")
    assert store.point("demo", "chats", other, "run-3")
    assert store.point("demo", "chats", one, "run-4")
    assert [(p.id, p.made_by) for p in store.refs.history("demo", "chats")] == [
        (one.id, "run-1"),
        (other.id, "run-3"),
        (one.id, "run-4"),
    ]
    entry = json.loads((store.root / "refs" / "demo" / "chats" / "00000001.json").read_text())
    assert entry["run"] == "run-1", "the key that 0.1 wrote and reads"
    assert store.refs.runs() == ["demo"]
    assert {output: p.id for output, p in store.refs.outputs("demo").items()} == {"chats": one.id}


def test_a_name_keeps_the_recipe_of_its_last_whole_run(store):
    assert store.refs.recipe("demo") is None
    store.remember_recipe("demo", "tiny", ["dedup.threshold=0.7"])
    store.remember_recipe("demo", "tiny", ["dedup.threshold=0.7"])
    assert store.refs.recipe("demo") == RecipeRef(recipe="tiny", changes=("dedup.threshold=0.7",))
    store.remember_recipe("demo", "tiny", [])
    assert store.refs.recipe("demo").changes == ()
    assert len(list((store.root / "refs" / "demo" / ".recipe").iterdir())) == 2
    assert store.refs.outputs("demo") == {}


def test_an_entry_of_a_newer_release_that_says_more_is_read(publish, store):
    store.point("demo", "chats", publish("conversations", conversations=[CHAT]), "run-1")
    path = store.root / "refs" / "demo" / "chats" / "00000001.json"
    path.write_text(path.read_text().replace("{", '{"more": 1, ', 1))
    assert store.refs.get("demo", "chats").made_by == "run-1"


def test_a_name_with_a_damaged_entry_says_so_and_strangers_among_the_names_are_passed_over(
    publish, store
):
    store.point("demo", "chats", publish("conversations", conversations=[CHAT]), "run-1")
    folder = store.root / "refs"
    (folder / ".DS_Store").write_text("")
    (folder / "Other FolderStorage").mkdir()
    (folder / "demo" / "chats" / "notes.txt").write_text("")
    (folder / "demo" / "chats" / "000000007.json").write_text("{")  # no ref has this number
    assert isinstance(store.refs, Refs)
    assert store.refs.runs() == ["demo"]
    (folder / "demo" / "chats" / "00000002.json").write_text("{")
    with pytest.raises(ArtifactError, match="ref demo/chats: its entry 2 cannot be read"):
        store.find("demo/chats")
    (folder / "demo" / "chats" / "00000003.json").mkdir()
    with pytest.raises(
        ArtifactError, match=r"ref demo/chats: its entry 3 cannot be read: .*Is a directory"
    ):
        store.find("demo/chats")
