from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from data_contracts import ConfigError, InputError, Store
from stages import stage
from stages.collect_chats.config import QUESTIONS
from stages.collect_chats.questions import Questions
from stages.collect_chats.sandbox import missing
from stages.renamed_settings import RenamedSettingWarning
from stages.run import run_stage
from tests.golden import collect_chats as golden

confined = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture
def pages(publish):
    return golden.inputs(publish)["training_documents"]


def asked(artifact, kind=None):
    rows = artifact.read("conversations").to_pylist()
    return {
        row["messages"][0]["content"]: row["messages"][-1]["content"]
        for row in rows
        if kind in (None, row["kind"])
    }


def reasons(artifact):
    return {(row["reason"], row["content"]) for row in artifact.read("rejects").to_pylist()}


def test_an_api_page_gives_its_descriptions_signatures_and_lookups(run, pages):
    chats = run("collect_chats", golden.SETTINGS, training_documents=pages)
    assert (
        "Remove any common leading whitespace from every line in `text`."
        in asked(chats, "signature").values()
    )
    assert asked(chats, "module").popitem()[1] == "Text wrapping and filling."
    assert "`textwrap.indent(text, prefix, predicate=None)`" in asked(chats, "parameters").values()
    assert "`textwrap.dedent`" in asked(chats, "lookup").values()
    assert ("undocumented", "textwrap.nothing") in reasons(chats)


def test_names_that_are_left_out_give_no_chats_and_are_counted(run, pages):
    chats = run(
        "collect_chats",
        golden.SETTINGS | {"names": {"skip": [r"\.indent$"]}},
        training_documents=pages,
    )
    assert not [question for question in asked(chats) if "textwrap.indent" in question]
    assert not asked(chats, "doctest")  # the page's only examples are in its description
    assert ("skipped", "textwrap.indent") in reasons(chats)
    assert (
        "Remove any common leading whitespace from every line in `text`."
        in asked(chats, "signature").values()
    )


@confined
def test_a_doctest_is_kept_when_it_prints_what_the_page_says_and_rejected_when_not(run, pages):
    chats = run("collect_chats", golden.SETTINGS, training_documents=pages)
    assert [(q.split("\n")[1:], a) for q, a in asked(chats, "doctest").items()] == [
        ([">>> from textwrap import indent", ">>> indent('a', '- ')"], "'- a'")
    ]
    rejected = [row for row in chats.read("rejects").to_pylist() if row["kind"] == "doctest"]
    assert [(row["reason"], row["detail"]) for row in rejected] == [
        ("output_differs", "it does not print \"'wrong'\\n\"")
    ]


def test_any_prose_gives_chats(run, pages):
    chats = run("collect_chats", golden.SETTINGS, training_documents=pages)
    assert "A hive has one queen. She lays all the eggs." in asked(chats, "prose").values()
    assert (
        asked(chats, "section").popitem()[1]
        == "Bees make honey from nectar. They keep it in cells of wax."
    )


def test_a_chinese_page_gives_chats(run, publish):
    page = golden.document(
        "蜜蜂",
        "蜜蜂是一种会飞行的昆虫，住在蜂箱里。每个蜂箱有一只蜂王，她产下所有的卵。\n",
        "garden",
    )
    chats = run(
        "collect_chats",
        golden.SETTINGS,
        training_documents=publish("training_documents", documents=[page]),
    )
    assert set(asked(chats, "prose").values()) == {
        "蜜蜂是一种会飞行的昆虫，住在蜂箱里。每个蜂箱有一只蜂王，她产下所有的卵。",
        "每个蜂箱有一只蜂王，她产下所有的卵。",
    }


@pytest.mark.slow
def test_the_number_of_workers_does_not_change_a_byte(run, pages, tmp_path):
    contents = set()
    for workers in (1, 2):
        config = stage("collect_chats").config_class.parse({"workers": workers}, "collect_chats")
        made, _ = run_stage(
            Store(tmp_path / f"store{workers}"),
            stage("collect_chats"),
            config,
            {"training_documents": pages},
        )
        contents.add(made.manifest.content)
    assert len(contents) == 1


def test_the_documents_of_one_split_stay_out_of_the_other(run, publish):
    documents = [
        golden.document(
            f"About place{n}",
            golden.PROSE.replace("Bees", f"Place{n}").replace("A hive", f"Hive {n}"),
        )
        for n in range(60)
    ]
    chats = run(
        "collect_chats",
        {"workers": 1, "heldout_share": 0.3},
        training_documents=publish("training_documents", documents=documents),
    )
    by_split = {"train": set(), "heldout": set()}
    for row in chats.read("conversations").to_pylist():
        by_split[row["split"]].add(row["document"])
    assert not by_split["train"] & by_split["heldout"]
    assert 8 <= len(by_split["heldout"]) <= 30


def test_pages_of_always_train_are_never_held_out(run, publish):
    documents = [
        golden.document(f"About place{n}", golden.PROSE.replace("Bees", f"Place{n}"))
        for n in range(30)
    ]
    pages = publish("training_documents", documents=documents)
    wanted = {row["id"] for row in documents if row["url"].endswith("0")}
    splits = []
    for settings in ({}, {"always_train": ["0$"]}):
        chats = run(
            "collect_chats",
            {"workers": 1, "heldout_share": 0.8, **settings},
            training_documents=pages,
        )
        rows = chats.read("conversations", ["document", "split"]).to_pylist()
        splits.append({row["split"] for row in rows if row["document"] in wanted})
    assert "heldout" in splits[0]
    assert splits[1] == {"train"}


def test_a_document_gives_at_most_per_document_chats_and_the_rest_are_counted(run, pages):
    chats = run(
        "collect_chats",
        golden.SETTINGS | {"limits": {"per_document": 2}, "kinds": ["signature", "parameters"]},
        training_documents=pages,
    )
    assert chats.rows("conversations") == 2
    assert "over_document_limit" in {reason for reason, _ in reasons(chats)}


def test_a_question_is_put_in_as_many_forms_as_asked_for(run, pages):
    def signatures(forms):
        settings = golden.SETTINGS | {"names": {"forms": forms}}
        return asked(run("collect_chats", settings, training_documents=pages), "signature")

    one, three = signatures(1), signatures(3)
    assert set(one) < set(three)
    assert sorted(answer for answer in one.values() for _ in range(3)) == sorted(three.values())


def test_only_the_pages_asked_for_give_chats(run, pages):
    made = run("collect_chats", golden.SETTINGS | {"pages": ["/bees$"]}, training_documents=pages)
    assert {row["url"] for row in made.read("conversations").to_pylist()} == {
        "http://example.org/bees",
        "about:assistant",
    }


def test_own_chats_are_taken_and_each_bad_row_is_rejected_with_its_reason_file_and_row(
    run, pages, tmp_path
):
    file = tmp_path / "chats.jsonl"
    good = {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Hi?"},
            {"role": "assistant", "content": "Yes."},
        ]
    }
    rows = [
        json.dumps(good),
        json.dumps({"prompt": "2+2?", "response": "4"}),
        "{not json",
        json.dumps([1]),
        json.dumps({"text": "x"}),
        json.dumps({"messages": [{"role": "tool", "content": "x"}]}),
        json.dumps({"prompt": "2+3?", "response": " "}),
        json.dumps({"messages": good["messages"][:2]}),
        "",
        json.dumps({"prompt": "2+2?", "response": "5"}),
    ]
    file.write_text("\n".join(rows))
    chats = run(
        "collect_chats", {"kinds": [], "files": [str(file)], "workers": 1}, training_documents=pages
    )
    assert asked(chats) == {"Be kind.": "Yes.", "2+2?": "4"}
    rejected = [
        (row["reason"], row["url"].rsplit("#")[-1], row["detail"])
        for row in chats.read("rejects").to_pylist()
    ]
    assert [(reason, int(row)) for reason, row, _ in rejected] == [
        ("unreadable_row", 3),
        ("not_an_object", 4),
        ("no_messages", 5),
        ("unknown_role", 6),
        ("empty_turn", 7),
        ("wrong_order", 8),
        ("duplicate_question", 10),
    ]
    assert rejected[0][2].startswith(f"{file} row 3: not JSON")


def test_own_chats_may_be_parquet(run, pages, tmp_path):
    file = tmp_path / "chats.parquet"
    pq.write_table(pa.table({"prompt": ["2+2?"], "response": ["4"]}), file)
    settings = {"kinds": [], "files": [str(file)], "workers": 1}
    chats = run("collect_chats", settings, training_documents=pages)
    assert asked(chats) == {"2+2?": "4"}


def test_own_chats_need_no_pages_and_kinds_of_pages_then_give_nothing(run, tmp_path):
    file = tmp_path / "chats.jsonl"
    file.write_text(json.dumps({"prompt": "2+2?", "response": "4"}))
    chats = run("collect_chats", {"files": [str(file)]})
    assert asked(chats, "user") == {"2+2?": "4"}
    assert {row["kind"] for row in chats.read("conversations").to_pylist()} == {"user", "identity"}
    assert chats.manifest.inputs == {}
    chats.check()


def test_without_pages_and_files_both_are_named(run, store):
    with pytest.raises(
        ConfigError,
        match=r"neither training_documents nor files(.|\n)*training_documents=NAME/.*--set 'files=",
    ):
        run("collect_chats", {"kinds": ["identity"]})
    assert not store.ids()


def test_pages_without_rows_are_an_error(run, publish):
    with pytest.raises(
        InputError, match="0 conversations from 0 documents and 0 files: no candidate was found"
    ):
        run(
            "collect_chats",
            golden.SETTINGS,
            training_documents=publish("training_documents", documents=[]),
        )


def test_own_files_may_lie_in_the_home_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "chats.jsonl").write_text(json.dumps({"prompt": "2+2?", "response": "4"}))
    (tmp_path / "mine.yaml").write_text((QUESTIONS / "de.yaml").read_text("utf-8"))
    settings = {"files": ["~/chats.jsonl"], "questions": "~/mine.yaml"}
    assert asked(run("collect_chats", settings), "user") == {"2+2?": "4"}


def test_another_content_of_a_file_is_another_result(run, pages, tmp_path):
    file = tmp_path / "chats.jsonl"
    settings = {"kinds": [], "workers": 1, "files": [str(file)]}
    file.write_text(json.dumps({"prompt": "2+2?", "response": "4"}))
    first = run("collect_chats", settings, training_documents=pages)
    file.write_text(json.dumps({"prompt": "2+3?", "response": "5"}))
    assert run("collect_chats", settings, training_documents=pages).id != first.id


@pytest.mark.parametrize(("name", "data"), [("chats.parquet", b"PAR1 no"), ("chats.csv", b"a,b")])
def test_a_file_that_cannot_be_read_is_named(run, pages, tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        run(
            "collect_chats",
            {"files": [str(tmp_path / name)], "workers": 1},
            training_documents=pages,
        )


def test_no_conversation_at_all_is_an_error_with_counts(run, publish, tmp_path):
    page = publish(
        "training_documents",
        documents=[golden.document("Pydoc: module x", "Module Reference\n\nFunctions\nf(x)\n")],
    )
    message = r"from 1 documents and 0 files: 2 undocumented\n.*groundup stage collect_chats --keys"
    with pytest.raises(InputError, match=message):
        run(
            "collect_chats",
            {"kinds": ["module", "signature"], "workers": 1},
            training_documents=page,
        )


def test_own_questions_with_wrong_fields_are_one_error(run, pages, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("module: ['{nam}?']\nlookups: [x]\n")
    with pytest.raises(ConfigError, match=r"signature is missing.*lookups is not known.*\{nam\}"):
        run("collect_chats", {"questions": str(file), "workers": 1}, training_documents=pages)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("module: What is it?", "module is not a list"),
        ("module: ['{name.x}?']", "module: .* is not a text with fields"),
        ("module: ['{name']", "module: .* is not a text with fields"),
        ("module: [42]", "module: 42 is not a text"),
        (
            "identity: [{question: Who, answer: 'I like {curly} braces'}]",
            "identity: .*curly.* is not a question and an answer",
        ),
        ("identity: [{question: 42, answer: Fine}]", "the question 42 is not a text"),
        ("identity: [Hello]", "identity: 'Hello' is not a question and an answer"),
    ],
)
def test_a_line_of_own_questions_that_cannot_be_used_is_named(tmp_path, line, problem):
    file = tmp_path / "mine.yaml"
    forms = yaml.safe_load((QUESTIONS / "en.yaml").read_text("utf-8"))
    del forms[line.split(":")[0]]
    file.write_text(f"{yaml.safe_dump(forms)}{line}\n")
    with pytest.raises(ConfigError, match=problem):
        Questions.load(file, 0)


def test_the_limits_of_chats_are_read_outside_their_group_and_enter_the_id_as_before():
    config = stage("collect_chats").config_class
    renamed = r"max_chars is now called collect_chats\.limits\.max_chars"
    with pytest.warns(RenamedSettingWarning, match=renamed):
        old = config.parse({"max_chars": 200, "per_document": 3}, "collect_chats")
    new = config.parse({"limits": {"max_chars": 200, "per_document": 3}}, "collect_chats")
    assert old == new
    entered = new.identity()
    assert (entered["min_chars"], entered["max_chars"], entered["per_document"]) == (12, 200, 3)
    assert "limits" not in entered
