"""Attribution of the event loop's samples to parts of the program."""

from __future__ import annotations

from benchmarks.event_loop import BELOW_PYTHON, LOOP, by_part, part_of

START = f"thread (12): {LOOP};Thread._bootstrap (threading.py:1002);Thread.run (threading.py:982)"
CALL = f"{START};FastPathCycle.run_asgi (serve/http/fast_path.py:64);HttpApp.__call__ (serve/http/app.py:99)"


def test_a_sample_counts_for_its_innermost_known_part() -> None:
    assert part_of(CALL.split(";")).startswith("admission")
    parse = f"{CALL};parse_request (convoy/wire/oip_http.py:90);loads (json/decoder.py:1)"
    assert part_of(parse.split(";")).startswith("JSON documents")
    run = f"{CALL};OnnxRuntimeEngine.run (models/engines/backends/onnxruntime.py:62);Session.run (onnxruntime/capi/x.py:1)"
    assert part_of(run.split(";")).startswith("engine")
    assert part_of([*START.split(";"), "tick (ray/util.py:1)"]) == "other"


def test_samples_of_other_threads_are_ignored() -> None:
    decode = "thread (13): decode;Thread.run (threading.py:982);Decoder.decode (serve/images/decoder.py:9)"
    parts = by_part([f"{START} 6", f"{CALL} 3", f"{CALL} 1", f"{decode} 100"])
    assert parts[BELOW_PYTHON] == 6
    assert parts.total() == 10
