"""Chat templates are untrusted programs: bounded in time and memory, and confined to an error."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path

import gguf
import psutil
import pytest

from data_contracts import ArtifactError, GroundupError, InputError
from stages import chat_templates
from stages.chat_templates import ChatTemplate, Limits
from stages.export_gguf.vocabulary import read_vocabulary
from stages.llama_cpp.chat import answer, loaded
from stages.llama_cpp.engine import LlamaCpp
from stages.lm.chat import ChatFormat
from stages.lm.tokenizer import ModelTokenizer
from tests.checkpoints import CHAT_TEMPLATE, tiny_checkpoint

ASKED = [{"role": "user", "content": "Hi?"}]
TIGHT = Limits(seconds=1, bytes=256 << 20, characters=10_000)
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set ns = namespace(x='ab') %}"
    "{% for a in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x }}"
)
RECURSIVE = "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}"
ATTACKS = {
    "nested loop": (LOOP, "takes more than 1 seconds of processor time"),
    "doubling": (DOUBLING, "takes more memory"),
    "product": ("{{ 'a' * 10**11 }}", "takes more memory|cannot be used"),
    "power": ("{{ 9 ** (9 ** 9) }}", "processor time|takes more memory|crashes"),
    "recursive macro": (RECURSIVE, "is nested too deeply|crashes"),
    "recursive comparison": ("{% set a = [] %}{% set _ = a.append(a) %}{{ a == [a] }}", "."),
    "long": (
        "{% for a in range(9999) %}abcdef{% endfor %}",
        "makes 59,994 characters of 7, and may make",
    ),
    "deep source": (
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "nested too deeply|cannot be used|crashes",
    ),
    "deep list": ("{{ " + "[" * 90_000 + " }}", "nested too deeply|cannot be used|crashes"),
    "formatting": ("{{ '%999999999999d' | format(1) }}", "memory|cannot be used|crashes"),
    "padding": ("{{ 'a' | center(10**12) }}", "memory|cannot be used|crashes"),
    "digits": ("{{ (10 ** 5000) | string }}", "cannot be used"),
    "attribute": ("{{ ''.__class__.__mro__ }}", "cannot be used: SecurityError"),
    "globals": (
        "{{ cycler.__init__.__globals__.os.system('id') }}",
        "cannot be used: SecurityError",
    ),
    "format string": ("{{ '{0.__class__.__mro__}'.format('') }}", "cannot be used: SecurityError"),
    "format map": (
        "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
        "cannot be used: SecurityError",
    ),
    "half a character": (
        '{{ "\\ud800" }}',
        r"cannot be used: ValueError: it writes half of a character, U\+D800",
    ),
    "two halves": ('{{ "\\ud83d" }}{{ "\\ude00" }}', "it writes half of a character"),
    "nothing": ("{# #}", "cannot be used: ValueError: it writes nothing"),
    "import": ("{% import 'os' as os %}", "cannot be used"),
    "include": ("{% include '/etc/passwd' %}", "cannot be used"),
    "syntax": ("{% for %}", "cannot be used: TemplateSyntaxError"),
    "undefined": ("{{ a.b.c }}", "cannot be used: UndefinedError"),
    "filter that loads a library": (
        "{{ messages[0].content | striptags }}",
        "its filter 'striptags' opens a file, which a chat template may not do",
    ),
    "function that loads a library": (
        "{{ lipsum(3) }}",
        "a function in it opens a file, which a chat template may not do",
    ),
    "raises": (
        "{{ raise_exception('no ' ~ messages[0].content) }}",
        "cannot be used: TemplateError: no Hi",
    ),
    "raises controls": (
        "{{ raise_exception('\x1b]0;owned\x07') }}",
        r"TemplateError: \\x1b\]0;owned",
    ),
}


def refused(source: str, limits: Limits = TIGHT) -> str:
    with pytest.raises(ArtifactError) as error:
        ChatTemplate(source, "chat template of x", limits=limits).render([ASKED], prompt=True)
    return str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_a_template_that_goes_beyond_its_limits_is_one_error_and_the_next_one_renders(attack):
    source, said = ATTACKS[attack]
    with pytest.raises(ArtifactError, match=said) as error:
        ChatTemplate(source, "chat template of x", limits=TIGHT).render([ASKED], prompt=True)
    assert str(error.value).startswith("chat template of x: ")
    assert "\x1b" not in str(error.value)
    assert (
        ChatTemplate("{{ messages[0].content }}", "x", limits=TIGHT).render([ASKED])[0].text
        == "Hi?"
    )


@pytest.mark.slow
def test_a_template_that_needs_memory_takes_it_from_the_child_alone():
    peak = 0
    child = ChatTemplate("x", "x", limits=TIGHT)
    child.render([ASKED])
    before = psutil.Process().memory_info().rss
    for attack in ("doubling", "product", "padding"):
        refused(ATTACKS[attack][0])
        peak = max(peak, psutil.Process().memory_info().rss - before)
    assert peak < 64 << 20


def test_a_template_that_is_longer_than_any_in_use_is_not_even_sent():
    with pytest.raises(ArtifactError, match="is longer than 1,048,576 bytes"):
        ChatTemplate("x" * (1 << 20) + "yy", "chat template of x")


@pytest.mark.slow
def test_the_child_knows_nothing_of_the_environment_and_opens_nothing(monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    ChatTemplate("x", "x", limits=TIGHT).render([ASKED])
    children = [
        process
        for process in psutil.Process().children()
        if str(chat_templates.CHILD) in process.cmdline()
    ]
    assert children
    for child in children:  # one for each set of limits
        environment = child.environ()
        assert "SECRET" not in environment
        assert environment["HOME"] == os.devnull
        limits = Path(f"/proc/{child.pid}/limits").read_text()
        for name in ("Max open files", "Max file size"):
            [line] = [line for line in limits.splitlines() if line.startswith(name)]
            assert line.split()[3:5] == ["0", "0"]


CONFINED = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("child", sys.argv[1])
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
import os, socket, subprocess
child.confine({"bytes": 1 << 28})
tries = [
    lambda: open("/etc/passwd"),
    lambda: os.system("true"),
    lambda: subprocess.run(["true"]),
    lambda: os.fork(),
    lambda: socket.socket(),
    lambda: os.listdir("/"),
    lambda: os.kill(os.getppid(), 0),
    lambda: os.execv("/bin/true", ["true"]),
]
done = []
for number, attempt in enumerate(tries):
    try:
        attempt()
    except OSError:
        continue
    done.append(number)
print(done)
"""


@pytest.mark.slow
def test_who_breaks_out_of_the_sandbox_of_jinja_finds_no_files_no_programs_and_no_network():
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, str(chat_templates.CHILD)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_a_child_that_is_killed_is_replaced_and_does_not_outlive_its_parent():
    template = ChatTemplate("{{ messages[0].content }}", "x", limits=TIGHT)
    template.render([ASKED])
    for child in psutil.Process().children():
        if str(chat_templates.CHILD) in child.cmdline():
            child.kill()
            child.wait()
    assert template.render([ASKED])[0].text == "Hi?"


PARENT = f"""
import sys
from stages.chat_templates import ChatTemplate, Limits
limits = Limits(seconds=10_000)  # nothing else ends the child while the test waits
print(ChatTemplate("x", "x", limits=limits).render([{ASKED!r}]), flush=True)
ChatTemplate({LOOP!r}, "x", limits=limits).render([{ASKED!r}])
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_however_the_parent_ends_in_the_middle_of_a_template_no_child_is_left(sent):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        children = psutil.Process(parent.pid).children()
        assert children
        parent.send_signal(sent)
        parent.wait()
        gone, alive = psutil.wait_procs(children, timeout=300)
    assert not alive
    assert len(gone) == len(children)


@pytest.mark.slow
def test_several_threads_share_the_child_and_each_gets_its_own_answer():
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        chat = [{"role": "user", "content": str(number)}]
        found[number] = (
            ChatTemplate("{{ messages[0].content }}", "x", limits=TIGHT).render([chat])[0].text
        )

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: str(number) for number in range(20)}


@pytest.mark.slow
def test_a_child_that_cannot_start_is_one_error(monkeypatch, tmp_path):
    broken = tmp_path / "child.py"
    broken.write_text("raise SystemExit('no')\n")
    monkeypatch.setattr(chat_templates, "CHILD", broken)
    with pytest.raises(GroundupError, match="did not start: no"):
        ChatTemplate("x", "x", limits=Limits(seconds=3)).render([ASKED])


def with_template(folder: Path, source: str) -> Path:
    (folder / "chat_template.jinja").write_text(source)
    return folder


@pytest.fixture
def folder(publish, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_checkpoint(publish).path, tmp_path / "checkpoint"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "source", [LOOP, DOUBLING, RECURSIVE, "{% for %}", "{{ ''.__class__.x }}", '{{ "\\ud800" }}']
)
def test_the_template_of_a_checkpoint_is_held_to_the_limits_by_every_stage_that_renders_it(
    folder, source, monkeypatch
):
    monkeypatch.setattr(Limits, "__init__", lambda self: self.__dict__.update(vars(TIGHT)))
    with_template(folder, CHAT_TEMPLATE + source)
    for use in (ChatFormat, read_vocabulary):
        with pytest.raises(ArtifactError, match="chat template of"):
            use(ModelTokenizer(folder))


def gguf_with_template(gguf_file: Path, target: Path, source: str) -> Path:
    """The same file with another chat template."""
    reader = gguf.GGUFReader(gguf_file)
    writer = gguf.GGUFWriter(target, str(reader.fields["general.architecture"].contents()))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        value = source if name == "tokenizer.chat_template" else field.contents()
        kind = field.types[0]
        writer.add_key_value(
            name, value, kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        )
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return target


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from data_contracts import Store
    from tests.conftest import publisher, runner

    store = Store(tmp_path_factory.mktemp("gguf") / "store")
    quick = {"quantizations": ["F16"], "positions": 2, "new_tokens": 2, "prompts": ["Hi?"]}
    made = runner(store)("export_gguf", quick, checkpoint=tiny_checkpoint(publisher(store)))
    return made.path / made.read("quantizations").to_pylist()[0]["file"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack",
    [
        "nested loop",
        "doubling",
        "recursive macro",
        "syntax",
        "raises controls",
        "half a character",
        "nothing",
    ],
)
def test_chat_with_a_gguf_whose_template_is_hostile_ends_with_one_error(
    exported, tmp_path, monkeypatch, attack
):
    monkeypatch.setattr(Limits, "__init__", lambda self: self.__dict__.update(vars(TIGHT)))
    source, said = ATTACKS[attack]
    hostile = gguf_with_template(exported, tmp_path / "hostile.gguf", source)
    with loaded(hostile, threads=1) as model, pytest.raises(ArtifactError, match=said) as error:
        list(answer(model, ASKED, max_tokens=2))
    assert "\x1b" not in str(error.value)
    assert f"chat template of {hostile}" in str(error.value)


@pytest.mark.slow
def test_the_copy_that_those_attacks_start_from_is_a_model_that_answers(exported, tmp_path):
    plain = gguf_with_template(exported, tmp_path / "plain.gguf", "{{ messages[0].content }}")
    with loaded(plain, threads=1) as model:
        assert model.prompt(ASKED)
        assert isinstance("".join(answer(model, ASKED, max_tokens=2)), str)


@pytest.mark.slow
def test_controls_that_a_template_prints_are_text_of_the_prompt_and_go_no_further(
    exported, tmp_path
):
    hostile = gguf_with_template(
        exported, tmp_path / "hostile.gguf", "\x1b]0;owned\x07{{ messages[0].content }}"
    )
    with loaded(hostile, threads=1) as model:
        assert len(model.prompt(ASKED)) > len(ASKED[0]["content"])


@pytest.mark.slow
def test_half_a_character_in_a_conversation_is_not_blamed_on_the_template():
    chats = [ASKED, [{"role": "user", "content": "a \udcff"}]]
    with pytest.raises(InputError, match=r"conversation 1: holds half of a character, U\+DCFF"):
        ChatTemplate("{{ messages[0].content }}", "x", limits=TIGHT).render(chats)


@pytest.mark.slow
@pytest.mark.parametrize("question", [b"\xff", b"caf\xe9"])
def test_a_question_that_is_no_text_is_one_error_however_it_comes(exported, question):
    command = [str(Path(sys.executable).with_name("groundup")), "chat", str(exported)]
    given = {"--prompt": [*command, "--prompt", os.fsdecode(question)], "standard input": command}
    for (where, asked), errors in product(
        given.items(), ("strict", "surrogateescape")
    ):  # as the locale says
        environment = os.environ | {"PYTHONIOENCODING": f"utf-8:{errors}"}
        ended = subprocess.run(
            asked, input=question + b"\n\n", env=environment, capture_output=True, check=False
        )
        said = ended.stderr.decode()
        assert ended.returncode == 2, said
        assert f"{where}: holds bytes that are not UTF-8" in said
        assert "Traceback" not in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "answered", [(500, b'{"error": {"message": "no"}}'), (200, b"\xff"), (200, b"[]")]
)
def test_whatever_llama_cpp_refuses_is_one_error(exported, monkeypatch, answered):
    status, data = answered

    def get(self: LlamaCpp, method: str, path: str, body: object = None) -> dict[str, object]:
        return (
            self._reply(status, data, path)
            if path == "/tokenize"
            else whole(self, method, path, body)
        )

    whole = LlamaCpp._call
    monkeypatch.setattr(LlamaCpp, "_call", get)
    with (
        pytest.raises(ArtifactError, match=r"llama\.cpp (refused|answers)") as error,
        loaded(exported, threads=1) as model,
    ):
        list(answer(model, ASKED, max_tokens=2))
    assert str(exported) in str(error.value)
