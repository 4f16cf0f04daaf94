"""Bits per byte of held-out pages: windows, batches, xz, and the model before it was tuned."""

from __future__ import annotations

import lzma
import math
import shutil
import subprocess
import weakref
from types import SimpleNamespace

import pytest
import torch

from stages.evaluate.bits_per_byte import (
    Page,
    bits_per_byte,
    measure,
    standard_error,
    windows,
    xz_bits_per_byte,
)
from stages.evaluate.config import EvaluateConfig
from stages.evaluate.model import load
from stages.evaluate.pages import read_pages
from stages.lm.tokenizer import ModelTokenizer
from stages.report import Report
from tests.checkpoints import tiny_checkpoint, tokenizer
from tests.golden.evaluate import PAGES
from tests.stages.evaluate.quick import QUICK, scores


@pytest.mark.slow
def test_bits_per_byte_of_whole_pages_are_those_of_the_model(publish, run, eval_items):
    checkpoint = tiny_checkpoint(publish)
    made = run("evaluate", QUICK, checkpoint=checkpoint, eval_items=eval_items)
    model, tokenizer = load(ModelTokenizer(checkpoint), "cpu")
    tokenizer.backend_tokenizer.encode_special_tokens = True
    nats = 0.0
    for page in PAGES:
        ids = [0, *tokenizer.backend_tokenizer.encode(page["text"]).ids]
        for at in range(1, len(ids)):
            # the end of the window of 128 that scores this token
            end = min(len(ids) - 1, 128 + 64 * max(0, math.ceil((at - 128) / 64)))
            begin = max(0, end - 128)
            with torch.inference_mode():
                logits = model(torch.tensor([ids[begin:at]])).logits[0, -1]
            nats -= float(logits.double().log_softmax(-1)[ids[at]])
    size = sum(len(page["text"].encode()) for page in PAGES)
    assert scores(made)["heldout_pages", "bits_per_byte"]["value"] == pytest.approx(
        nats / math.log(2) / size, rel=1e-4
    )


@pytest.mark.parametrize(
    ("count", "length", "stride"),
    [(1, 8, 4), (8, 8, 4), (9, 8, 4), (50, 8, 3), (50, 8, 1), (50, 8, 8), (50, 8, 99)],
)
def test_windows_score_each_token_once_with_the_context_promised(count, length, stride):
    tokens = list(range(100, 100 + count))
    scored = []
    for window in windows(0, 7, tokens, length, stride):
        assert len(window.inputs) == len(window.targets) <= length
        assert window.inputs[1:] == window.targets[:-1]
        if scored:
            assert window.seen >= length - min(stride, length)
        scored += window.targets[window.seen :]
    assert scored == tokens


def test_the_size_of_batches_does_not_change_what_a_page_costs(publish):
    checkpoint = tiny_checkpoint(publish)
    model, tokenizer = load(ModelTokenizer(checkpoint), "cpu")
    pages = [(page["id"], page["text"]) for page in [*PAGES, {"id": "e", "text": "\x00"}, *PAGES]]
    one, many = (
        list(measure(model, tokenizer.backend_tokenizer, 0, pages, 32, 8, size)) for size in (1, 7)
    )
    assert [page.id for page in one] == [page.id for page in many] == [page for page, _ in pages]
    assert [page.nats for page in one] == pytest.approx([page.nats for page in many], rel=1e-5)


def test_pages_without_tokens_are_counted_wherever_they_stand(publish):
    model, tokenizer = load(ModelTokenizer(tiny_checkpoint(publish)), "cpu")
    pages = [("a", ""), ("b", "Text."), ("c", ""), ("d", "")]
    for size in (1, 2, 7):
        measured = measure(model, tokenizer.backend_tokenizer, 0, pages, 32, 8, size)
        assert [page.id for page in measured] == ["a", "b", "c", "d"]


def test_xz_is_the_program_of_that_name_on_all_pages_in_one_file(tmp_path):
    texts = ["a page\n" * 40, "ünother, not alike\n" * 30]
    data = "".join(texts).encode()
    compressed = lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)
    assert xz_bits_per_byte(texts) == 8 * len(compressed) / len(data)
    if xz := shutil.which("xz"):
        packed = subprocess.run(
            [xz, "-9e", "-T1", "-c"], input=data, capture_output=True, check=True
        ).stdout
        assert xz_bits_per_byte(texts) == 8 * len(packed) / len(data)


def test_the_standard_error_shrinks_with_pages_and_is_unknown_for_one():
    pages = [Page(str(n), 100.0 + 10 * (n % 3), 100) for n in range(9)]
    assert bits_per_byte(pages) == pytest.approx(110 / 100 / math.log(2))
    assert standard_error(pages) == pytest.approx(math.sqrt(75 / 9) / 100 / math.log(2))
    assert standard_error(pages[:1]) is None
    assert bits_per_byte([]) is None


@pytest.mark.slow
def test_the_base_model_reads_the_same_pages_beside_the_tuned_one(publish, run, eval_items):
    tuned, base = tiny_checkpoint(publish), tiny_checkpoint(publish, "qwen3")
    made = scores(
        run("evaluate", QUICK, checkpoint=tuned, base_checkpoint=base, eval_items=eval_items)
    )
    alone = scores(run("evaluate", QUICK, checkpoint=base, eval_items=eval_items))
    assert (
        made["heldout_pages_base", "bits_per_byte"]["value"]
        == alone["heldout_pages", "bits_per_byte"]["value"]
    )
    assert (
        made["heldout_pages", "bits_per_byte"]["value"]
        != alone["heldout_pages", "bits_per_byte"]["value"]
    )


@pytest.mark.slow
def test_one_model_is_in_memory_at_a_time_and_xz_packs_the_pages_once(
    publish, run, eval_items, monkeypatch
):
    models, alive, packed = [], [], []

    def watched(of, device):
        alive.append(sum(model() is not None for model in models))
        model, tokenizer = load(of, device)
        models.append(weakref.ref(model))
        return model, tokenizer

    def counted(texts):
        packed.append(list(texts))
        return xz_bits_per_byte(packed[-1])

    monkeypatch.setattr("stages.evaluate.stage.load", watched)
    monkeypatch.setattr("stages.evaluate.stage.xz_bits_per_byte", counted)
    tuned, base = tiny_checkpoint(publish), tiny_checkpoint(publish, "qwen3")
    made = scores(
        run("evaluate", QUICK, checkpoint=tuned, base_checkpoint=base, eval_items=eval_items)
    )
    assert alive == [0, 0]
    assert packed == [[page["text"] for page in PAGES]]
    assert (
        made["heldout_pages", "bits_per_byte"]["baseline"]
        == made["heldout_pages_base", "bits_per_byte"]["baseline"]
        > 0
    )


def test_a_batch_is_read_before_the_next_windows_of_the_page_are_made(monkeypatch):
    made, read = [], []

    class Model(torch.nn.Linear):
        def get_decoder(self):
            return self.hidden_states

        def hidden_states(self, ids):
            read.append(len(ids))
            assert len(made) == sum(read)
            return SimpleNamespace(last_hidden_state=torch.zeros(*ids.shape, 1))

        def get_output_embeddings(self):
            return lambda hidden: torch.zeros(len(hidden), 500)

    def counted(*args):
        for window in windows(*args):
            made.append(window)
            yield window

    monkeypatch.setattr("stages.evaluate.bits_per_byte.windows", counted)
    [page] = measure(Model(1, 1), tokenizer(), 0, [("long", "A page. " * 500)], 16, 8, 4)
    assert page.nats == pytest.approx(len(tokenizer().encode("A page. " * 500).ids) * math.log(500))
    assert len(read) > 10


@pytest.mark.slow
def test_max_length_and_stride_reach_the_windows(publish, eval_items):
    model, words = load(ModelTokenizer(tiny_checkpoint(publish)), "cpu")
    texts = [(page["id"], page["text"]) for page in PAGES]
    config = EvaluateConfig.parse(QUICK | {"stride": 5}, "evaluate")
    for length, stride in ((24, 5), (3, 3)):  # a longer stride counts as the length
        made = read_pages(config, model, words, length, eval_items, Report())
        assert made == list(measure(model, words.backend_tokenizer, 0, texts, length, stride, 8))
        assert made != list(measure(model, words.backend_tokenizer, 0, texts, length, 2, 8))
