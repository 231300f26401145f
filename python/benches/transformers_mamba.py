"""Times a Mamba of Hugging Face transformers through dis_ssm.compat beside its own slow path, on the CPU.

    python python/benches/transformers_mamba.py [--rounds 5] [--threads 1 2] [--layers 24] [--width 768]

The 130 M shape with random weights: a prompt of 512 tokens, generation of 64 tokens after a prompt of one and after
that of 512, and a training step on 512 tokens. Two processes, one with `dis_ssm.compat` and one without, take turns.
Medians are printed in seconds; logits and generated tokens are compared.
"""

import argparse
import multiprocessing
import statistics
import sys
import time

PROMPT, GENERATED = 512, 64
TASKS = ("prefill", "generate", "prompt and generate", "training step")


def work(pipe, fast, threads, layers, width):
    """Builds the model, then runs the tasks whose names arrive, and sends their time and result back."""
    import torch

    torch.set_num_threads(threads)
    if fast:
        import dis_ssm
        import dis_ssm.compat

        dis_ssm.set_num_threads(threads)
        dis_ssm.compat.install()
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    config = transformers.MambaConfig(vocab_size=50280, hidden_size=width, num_hidden_layers=layers)
    model = transformers.MambaForCausalLM(config).eval()
    tokens = torch.randint(0, 50280, (1, PROMPT))

    def prefill():
        with torch.no_grad():
            return model(tokens, use_cache=True).logits

    def generate(prompt):
        mask = torch.ones_like(prompt)
        out = model.generate(
            prompt, attention_mask=mask, max_new_tokens=GENERATED, min_new_tokens=GENERATED, do_sample=False,
            pad_token_id=0,
        )  # fmt: skip
        return out[:, prompt.shape[1] :]

    def train():
        model.train()
        model.zero_grad(set_to_none=True)
        loss = model(tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        model.eval()
        return loss.detach()

    tasks = {
        "prefill": prefill,
        "generate": lambda: generate(tokens[:, :1]),
        "prompt and generate": lambda: generate(tokens),
        "training step": train,
    }
    pipe.send(transformers.__version__)
    for task in iter(pipe.recv, None):
        start = time.perf_counter()
        result = tasks[task]()
        pipe.send((time.perf_counter() - start, result.numpy()))


def start(fast, threads, options):
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(
        target=work, args=(there, fast, threads, options.layers, options.width), daemon=True
    )
    process.start()
    return here, process


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    for name, default in (("rounds", 5), ("layers", 24), ("width", 768)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    options = parser.parse_args()
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    print(names[0] if names else "unknown processor", flush=True)
    for threads in options.threads:
        workers = {name: start(name == "ours", threads, options) for name in ("ours", "slow path")}
        version = {name: pipe.recv() for name, (pipe, _) in workers.items()}["ours"]
        for task in options.tasks:
            times, results = {name: [] for name in workers}, {}
            for turn in range(options.rounds + 1):
                for name, (pipe, _) in workers.items():
                    pipe.send(task)
                    took, results[name] = pipe.recv()
                    if turn:
                        times[name].append(took)
            ours, slow = (statistics.median(times[name]) for name in ("ours", "slow path"))
            print(
                f"transformers {version}, {threads} threads, {task}: ours {ours:.3f} s, slow path {slow:.3f} s, "
                f"{slow / ours:.1f} times as fast; {agreement(task, results)}",
                flush=True,
            )
        for pipe, process in workers.values():
            pipe.send(None)
            process.join()


def agreement(task, results):
    """How far the results are apart."""
    ours, slow = results["ours"], results["slow path"]
    if "generate" in task:
        return f"{int((ours == slow).sum())} of {ours.size} tokens are the same"
    off = abs(ours - slow).max() / abs(slow).max()
    return f"apart by {off:.1e} of the largest magnitude"


if __name__ == "__main__":
    sys.exit(main())
