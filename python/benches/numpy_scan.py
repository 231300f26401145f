"""What the package costs beside the library it is made of: scans in both layouts, alternating, medians.

    maturin build --release --features bench && pip install target/wheels/dis_ssm-*.whl
    python python/benches/numpy_scan.py
"""

import argparse
import statistics
import time

import numpy as np

import dis_ssm
from dis_ssm import _native

LENGTH, STATES = 257, 16


def arrays(batch, channels):
    rng = np.random.default_rng(0)
    u, delta, dout = rng.normal(size=(3, batch, LENGTH, channels)).astype(np.float32)
    A = -np.exp(rng.normal(size=(channels, STATES))).astype(np.float32)
    B, C = rng.normal(size=(2, batch, LENGTH, STATES)).astype(np.float32)
    return u, delta, A, B, C, dout


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def calls(batch, channels, gradient):
    """What is timed, by name: each a function that returns seconds."""
    u, delta, A, B, C, dout = arrays(batch, channels)
    u_, delta_, B_, C_, dout_ = (np.ascontiguousarray(x.swapaxes(1, 2)) for x in (u, delta, B, C, dout))
    soft = dict(delta_softplus=True)
    if gradient:
        return {
            "library": lambda: _native.library_seconds(u, delta, A, B, C, dout),
            "bld": lambda: seconds(lambda: dis_ssm.selective_scan_grad(u, delta, A, B, C, dout, **soft, layout="bld")),
            "bdl": lambda: seconds(lambda: dis_ssm.selective_scan_grad(u_, delta_, A, B_, C_, dout_, **soft)),
        }
    return {
        "library": lambda: _native.library_seconds(u, delta, A, B, C, None),
        "bld": lambda: seconds(lambda: dis_ssm.selective_scan(u, delta, A, B, C, **soft, layout="bld")),
        "bdl": lambda: seconds(lambda: dis_ssm.selective_scan(u_, delta_, A, B_, C_, **soft)),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    print(f"dis_ssm {dis_ssm.__version__}, {dis_ssm.simd_level()}, L = {LENGTH}, N = {STATES}, medians of {rounds} rounds")
    print("| | threads | B | D | library, ms | bld | bdl |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, gradient in (("scan", False), ("gradient", True)):
        for threads in (1, 2):
            dis_ssm.set_num_threads(threads)
            for batch in (1, 8):
                for channels in (736, 1536):
                    timed = calls(batch, channels, gradient)
                    times = {which: [] for which in timed}
                    for _ in range(rounds + 2):
                        for which, call in timed.items():
                            times[which].append(call())
                    medians = {which: statistics.median(found[2:]) for which, found in times.items()}
                    library = medians.pop("library")
                    ratios = " | ".join(f"{median / library:.2f} x" for median in medians.values())
                    print(f"| {name} | {threads} | {batch} | {channels} | {1e3 * library:.2f} | {ratios} |", flush=True)


if __name__ == "__main__":
    main()
