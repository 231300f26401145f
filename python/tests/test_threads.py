import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

import dis_ssm


def scan(seed=0):
    rng = np.random.default_rng(seed)
    u, delta = rng.normal(size=(2, 2, 64, 300)).astype(np.float32)
    A, B = -np.ones((64, 16), np.float32), rng.normal(size=(2, 16, 300)).astype(np.float32)
    return dis_ssm.selective_scan(u, delta, A, B, B, delta_softplus=True)


def python(code, **environment):
    run = [sys.executable, "-c", code]
    return subprocess.run(run, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120)


def test_numbers_of_threads():
    assert dis_ssm.get_num_threads() >= 1
    for bad in (-1, 10**6, 10**30, 1.5, "two", float("nan")):
        with pytest.raises((ValueError, TypeError, OverflowError)):
            dis_ssm.set_num_threads(bad)
    found = python("import dis_ssm; print(dis_ssm.get_num_threads())", RAYON_NUM_THREADS="3")
    assert found.stdout.strip() == "3", found.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_process_has_threads_of_its_own():
    expected = scan()
    code = f"""
import os, sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
import dis_ssm, test_threads
dis_ssm.set_num_threads(2)
before = test_threads.scan()
child = os.fork()
if child == 0:
    ok = (test_threads.scan() == before).all() and dis_ssm.get_num_threads() == 2
    os._exit(0 if ok else 1)
assert os.waitpid(child, 0)[1] == 0
assert (test_threads.scan() == before).all()
"""
    found = python(code)
    assert found.returncode == 0, found.stderr
    np.testing.assert_array_equal(scan(), expected)


def test_calls_from_many_threads_at_once():
    """The interpreter's lock is released inside, and results are not mixed up."""
    expected = [scan(seed) for seed in range(4)]
    wrong = []

    def work(seed):
        for _ in range(5):
            if not (scan(seed) == expected[seed]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_an_interrupt_ends_the_drawing():
    code = """
import os, signal
import dis_ssm
# A process in the background is started with the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
pipeline = dis_ssm.Pipeline.from_pretrained("digits")
def interrupt(done, total):
    os.kill(os.getpid(), signal.SIGINT)
try:
    pipeline(num=2, steps=500, callback=interrupt)
except KeyboardInterrupt:
    print("interrupted")
"""
    assert python(code).stdout.strip() == "interrupted"


def test_import_brings_no_torch():
    found = python("import sys, dis_ssm; print('torch' in sys.modules)")
    assert found.stdout.strip() == "False", found.stderr
    assert hasattr(signal, "SIGINT")
