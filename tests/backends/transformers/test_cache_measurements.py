"""What a RetrievalCache says about itself, the path for two devices, and its thread."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from tiny import FLAT, close, feed, layer_of, prefilled, tiny, tokens

from sakuin import RetrievalCache
from sakuin.cache import layer


@pytest.fixture(scope="module")
def llama():
    return tiny("llama")


@pytest.fixture(scope="module")
def gemma3():
    return tiny("gemma3_text")


class TestMeasurements:
    def test_stats_are_means_over_steps_with_a_list_of_layers(self, llama):
        cache = prefilled(llama, 500)
        feed(llama, cache, tokens(70), 1)
        stats = cache.stats()
        assert stats["steps"] == 70
        assert stats["exact"] == pytest.approx(1.0)
        assert stats["coverage"] == pytest.approx(1.0)
        assert stats["touched_share"] == pytest.approx(2.0)  # flat reads all of it, in fp32
        assert [layer["layer"] for layer in stats["layers"]] == [0, 1]
        for name in ("touched_bytes", "seconds"):
            assert stats[name] == pytest.approx(sum(layer[name] for layer in stats["layers"]))
            assert stats[name] > 0

    def test_touched_bytes_are_those_of_one_token_also_in_passes_of_several(self, llama):
        touched = []
        for at_once in (1, 8):
            cache = prefilled(llama, 500)
            feed(llama, cache, tokens(64), at_once)
            touched.append(cache.stats()["touched_bytes"])
        assert touched[0] == pytest.approx(touched[1], rel=0.05)

    @pytest.mark.parametrize("batch", [1, 3])
    def test_steps_are_passes_however_many_rows_take_part(self, llama, batch):
        cache = prefilled(llama, 500, batch=batch)
        mask = torch.ones(batch, 500, dtype=torch.long)
        mask[-1, :450] = 0  # of this row nothing is in the index
        padded = RetrievalCache(llama.config, FLAT)
        with torch.no_grad():
            llama(tokens(500, batch), attention_mask=mask, cache=padded)
        for one in (cache, padded) if batch > 1 else (cache,):
            one.batch_repeat_interleave(2)
            for _ in range(7):
                rows = 2 * batch
                known = mask.repeat_interleave(2, 0) if one is padded else torch.ones(rows, 500)
                known = torch.cat([known, torch.ones(rows, one.get_seq_length() - 500 + 1)], 1)
                with torch.no_grad():
                    llama(tokens(1, rows), attention_mask=known, cache=one)
            stats = one.stats()
            assert stats["steps"] == stats["layers"][1]["steps"] == 7
        alone = prefilled(llama, 500)
        feed(llama, alone, tokens(7), 1)
        assert cache.stats()["touched_bytes"] == pytest.approx(alone.stats()["touched_bytes"], rel=0.01)

    def test_beams_take_one_step_for_each_token(self, llama):
        cache = RetrievalCache(llama.config, FLAT)
        llama.generate(tokens(300), cache=cache, num_beams=3, do_sample=False, max_new_tokens=9)
        assert cache.stats()["steps"] == 8  # the first token comes from the prompt's pass

    def test_stats_may_be_asked_within_inference_mode_and_outside(self, llama):
        with torch.inference_mode():
            cache = prefilled(llama, 500)
            feed(llama, cache, tokens(70), 1)
            inside = cache.stats()
            feed(llama, cache, tokens(3), 1)
        assert cache.stats()["steps"] == inside["steps"] + 3
        feed(llama, cache, tokens(70), 1)
        assert cache.stats()["steps"] == inside["steps"] + 73

    def test_bytes_are_counted_where_they_lie(self, gemma3):
        cache = prefilled(gemma3, 600)
        cache.flush()
        found = cache.kv_bytes()
        sealed = layer_of(cache).rows[0].index.n_tokens
        assert found["host"] >= sealed * 2 * 2 * 16 * 4
        assert found["device"] > 0
        assert cache.index_seconds > 0

    def test_tracked_mass_adds_up_to_one_for_each_query_head_step_and_layer(self, llama):
        cache = prefilled(llama, 500)
        cache.track_mass(True)
        feed(llama, cache, tokens(40), 1)
        mass = cache.mass()
        assert mass.shape == (2, 540)
        assert mass.sum().item() == pytest.approx(40 * 2 * 4, rel=1e-4)

    def test_tracked_mass_is_the_attention_that_eager_reports(self, llama):
        eager = tiny("llama", "eager")
        ids = tokens(401)
        cache = RetrievalCache(llama.config, FLAT)
        feed(llama, cache, ids[:, :400])
        cache.track_mass(True)
        feed(llama, cache, ids[:, 400:], 1)
        with torch.no_grad():
            weights = eager(ids, use_cache=False, output_attentions=True).attentions
        expected = sum(w[0, :, -1].view(2, 2, -1).sum(1) for w in weights)
        torch.testing.assert_close(cache.mass(), expected, atol=1e-4, rtol=1e-3)

    @pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
    def test_the_path_for_models_off_the_cpu_gives_the_same(self, family, monkeypatch):
        model = tiny(family)
        got = []
        for device_path in (False, True):
            cache = prefilled(model, 400)
            monkeypatch.setattr(layer, "in_one_call", lambda q, off=device_path: not off)
            cache.track_mass(True)
            logits = torch.cat([feed(model, cache, tokens(40), 1), feed(model, cache, tokens(12), 12)], 1)
            got.append((logits, cache.mass()))
        assert close(got[0][0], got[1][0])
        torch.testing.assert_close(got[0][1], got[1][1], atol=1e-4, rtol=1e-3)


PREFILL = """
import torch
from tiny import FLAT, tiny, tokens
from sakuin import RetrievalCache

model = tiny("llama")
cache = RetrievalCache(model.config, FLAT)
with torch.no_grad():
    for i, part in enumerate(tokens(40000).split(64, 1)):
        model(part, cache=cache)
        if i == 5:
            print("going", flush=True)
"""


def sealing_threads():
    return {thread for thread in threading.enumerate() if thread.name == "sakuin-sealing"}


LEAKS = """
from tiny import FLAT, tiny, tokens
from sakuin import RetrievalCache
from sakuin.index import _native

_native.set_leak_warnings(True)
model = tiny("llama")
cache = RetrievalCache(model.config, FLAT)
model(tokens(4000), cache=cache)
model(tokens(1), cache=cache)
"""


GIVEN_UP = """
import torch
from sakuin import RetrievalConfig
from sakuin.cache import sealing
from sakuin.index.base import new_index

keys = torch.randn(8, 8192, 64)
sealer = sealing.Sealer()
for _ in range(3):
    index = new_index(8, 64, 1, RetrievalConfig())
    job = sealing.Job(keys, keys, torch.randn(8, 2048, 64), index, sealing.Meter(), in_tail=True, due=0)
    sealer.submit(job)
del sealer, job, index
print("given up", flush=True)
"""


def run_script(tmp_path, text):
    script = tmp_path / "script.py"
    script.write_text(text)
    return subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


class TestSealingThread:
    def test_it_ends_with_the_cache(self, llama, monkeypatch):
        monkeypatch.setattr("sakuin.cache.sealing.spare_core", lambda: True)
        before = sealing_threads()
        cache = prefilled(llama, 400)
        (thread,) = sealing_threads() - before
        del cache
        gc.collect()
        thread.join(timeout=10)
        assert not thread.is_alive()

    def test_the_process_ends_well_while_segments_of_a_cache_that_is_gone_are_sealed(self, tmp_path):
        process = run_script(tmp_path, GIVEN_UP)
        out, errors = process.communicate(timeout=120)
        assert out == "given up\n"
        assert "terminate" not in errors
        assert process.returncode == 0

    def test_ctrl_c_in_prefill_ends_the_process_without_a_word_from_the_thread(self, tmp_path):
        process = run_script(tmp_path, PREFILL)
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "going"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert process.returncode in (1, 130, -signal.SIGINT)
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert "terminate" not in errors
        assert "Exception in thread" not in errors

    def test_python_ends_with_no_native_object_alive(self, tmp_path):
        process = run_script(tmp_path, LEAKS)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0
        assert errors == ""
