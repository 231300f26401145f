"""Times the selective scan of dis_ssm.torch beside torch's own ways to compute it, on the CPU.

    python python/benches/torch_scan.py [--rounds 7] [--threads 1 2] [--batch 1 8] [--channels 736 1536]

Contenders take turns in one run; medians are printed in milliseconds, with how many times as fast ours is:

* `ours`: `selective_scan_fn` with arrays in mamba's order (batch, channels, length), and `ours, tokens first` with the
  same as views of (batch, length, channels) arrays.
* `loop`: the definition that public code falls back to: exp(delta A) and delta B u at once, then a loop over tokens.
* `compiled`: the same recurrence, by torch.compile in pieces of 1, 8 or 32 tokens (`--pieces`); the fastest counts.
"""

import argparse
import statistics
import time

import torch
import torch.nn.functional as F

import dis_ssm
from dis_ssm.torch import selective_scan_fn

LENGTH, STATES = 257, 16


def loop(u, delta, A, B, C, D, z, delta_bias):
    """The recurrence in plain torch, (batch, channels, length)."""
    delta = F.softplus(delta + delta_bias[:, None])
    decay = torch.exp(torch.einsum("bdl,dn->bdln", delta, A))
    drive = torch.einsum("bdl,bnl,bdl->bdln", delta, B, u)
    state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
    outputs = []
    for t in range(u.shape[2]):
        state = decay[:, :, t] * state + drive[:, :, t]
        outputs.append(torch.einsum("bdn,bn->bd", state, C[:, :, t]))
    y = torch.stack(outputs, dim=2)
    return (y + u * D[:, None]) * F.silu(z)


def piece(state, u, delta, A, B, C):
    """Some tokens of the recurrence."""
    outputs = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        state = torch.exp(step * A) * state + step * B[:, None, :, t] * u[:, :, t, None]
        outputs.append((state * C[:, None, :, t]).sum(-1))
    return state, torch.stack(outputs, dim=2)


def compiled(tokens):
    """The recurrence by compiled pieces of so many tokens."""
    run = torch.compile(piece, dynamic=False)

    def scan(u, delta, A, B, C, D, z, delta_bias):
        delta = F.softplus(delta + delta_bias[:, None])
        state = u.new_zeros(u.shape[0], u.shape[1], A.shape[1])
        outputs = []
        for first in range(0, u.shape[2], tokens):
            part = slice(first, first + tokens)
            state, y = run(state, u[..., part], delta[..., part], A, B[..., part], C[..., part])
            outputs.append(y)
        return (torch.cat(outputs, dim=2) + u * D[:, None]) * F.silu(z)

    return scan


def ours(u, delta, A, B, C, D, z, delta_bias):
    return selective_scan_fn(u, delta, A, B, C, D, z, delta_bias, True)


def arguments(batch, channels, tokens_first):
    """Random arguments in mamba's shapes; wanted gradients are asked for by the caller."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    def sequence(rows):
        if tokens_first:
            return normal(batch, LENGTH, rows).transpose(1, 2)
        return normal(batch, rows, LENGTH)

    return [
        sequence(channels),
        0.5 * sequence(channels),
        -torch.exp(0.5 * normal(channels, STATES)),
        sequence(STATES),
        sequence(STATES),
        normal(channels),
        sequence(channels),
        0.5 * normal(channels),
    ]


def forward(function, values):
    with torch.no_grad():
        function(*values)


def both(function, values):
    leaves = [value.detach().requires_grad_() for value in values]
    function(*leaves).sum().backward()


def timed(run, *values):
    start = time.perf_counter()
    run(*values)
    return 1e3 * (time.perf_counter() - start)


def measure(contenders, run, rounds):
    """Medians of contenders that take turns, by name; one round to warm up.

    Those that take more than three seconds have one turn: they are no close race.
    """
    times = {name: [] for name in contenders}
    slow = set()
    for turn in range(rounds + 1):
        for name, (function, values) in contenders.items():
            if turn > 1 and name in slow:
                continue
            took = timed(run, function, values)
            if turn:
                times[name].append(took)
            elif took > 3000 and not name.startswith("compiled"):
                slow.add(name)
    return {name: statistics.median(values) for name, values in times.items()}


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    for name, values in (
        ("threads", [1, 2]),
        ("batch", [1, 8]),
        ("channels", [736, 1536]),
        ("pieces", [1, 8, 32]),
    ):
        parser.add_argument(f"--{name}", type=int, nargs="+", default=values)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled loops out")
    options = parser.parse_args()
    # Every length of a piece, with and without gradients, is a compilation.
    torch._dynamo.config.recompile_limit = 64
    print(f"{processor()}; torch {torch.__version__}, dis_ssm {dis_ssm.__version__}; L {LENGTH}, N {STATES}")
    for threads in options.threads:
        torch.set_num_threads(threads)
        dis_ssm.set_num_threads(threads)
        for batch in options.batch:
            for channels in options.channels:
                plain, tokens_first = (arguments(batch, channels, first) for first in (False, True))
                contenders = {
                    "ours": (ours, plain),
                    "ours, tokens first": (ours, tokens_first),
                    "loop": (loop, plain),
                }
                if not options.no_compile:
                    torch._dynamo.reset()
                    contenders.update(
                        {f"compiled {tokens}": (compiled(tokens), plain) for tokens in options.pieces}
                    )
                for name, run in (("forward", forward), ("forward and backward", both)):
                    report(
                        f"{threads} threads, B {batch}, D {channels}, {name}", contenders, run, options.rounds
                    )


def report(title, contenders, run, rounds):
    medians = measure(contenders, run, rounds)
    best = min((name for name in medians if name.startswith("compiled")), key=medians.get, default=None)
    shown = ["ours", "ours, tokens first", "loop"] + ([best] if best else [])
    figures = ", ".join(f"{name} {medians[name]:.2f} ms" for name in shown)
    ratios = [f"loop {medians['loop'] / medians['ours']:.1f}"]
    if best:
        ratios.append(f"compiled {medians[best] / medians['ours']:.1f}")
    print(f"{title}: {figures}; times as fast as {', '.join(ratios)}", flush=True)


if __name__ == "__main__":
    main()
