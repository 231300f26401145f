"""Fashion-MNIST for the same wall time: `dis train` with the plan it makes by itself, beside a U-ViT in PyTorch.

    cargo build --release
    target/release/dis train-classifier --data fashion:FOLDER --out classifier.safetensors
    python benches/peers/fashion.py FOLDER classifier.safetensors --minutes 10 --threads 1

Needs PyTorch for the CPU and NumPy. Both sides train one after the other, or with --together at once, each with its
threads; docs/performance.md has the table.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

FIGURES = ["fid", "precision", "recall", "coverage", "labels"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="Fashion-MNIST's four files")
    parser.add_argument("classifier", help="what dis train-classifier wrote")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dis", default="target/release/dis")
    parser.add_argument("--out", default="runs/peers", help="a folder that is not there yet")
    parser.add_argument("--together", action="store_true", help="both at once, each on cores of its own")
    options = parser.parse_args()
    out, threads = Path(options.out), str(options.threads)
    out.mkdir(parents=True)
    ours, theirs = out / "dis.npz", out / "uvit.npz"
    run = out / "run"
    data = f"fashion:{options.folder}"
    train = [options.dis, "train", "--data", data, "--for", f"{round(60 * options.minutes)}s", "--threads", threads, "--out", str(run)]
    peer = [sys.executable, str(Path(__file__).with_name("uvit.py")), options.folder, str(60 * options.minutes), str(theirs)]
    peer += ["--threads", threads]
    if options.together:
        running = [subprocess.Popen(command) for command in (train, peer)]
        if any(process.wait() for process in running):
            sys.exit("a side failed")
    else:
        for command in (train, peer):
            subprocess.run(command, check=True)
    draw = [options.dis, "sample", "--checkpoint", str(run), "--num", "1000", "--seed", "1", "--out", str(ours)]
    subprocess.run(draw, check=True)
    for features in (f"classifier:{options.classifier}", "pixels"):
        for samples in (ours, theirs):
            judged = samples.with_suffix(f".{features[:5]}.json")
            judge = [options.dis, "eval", str(samples), "--reference", f"{data},split=test", "--num-reference", "5000"]
            judge += ["--bootstrap", "0", "--features", features, "--json", str(judged)]
            subprocess.run(judge, check=True, stdout=subprocess.DEVNULL)
            found = {figure["name"]: figure["value"] for figure in json.loads(judged.read_text())["results"]["figures"]}
            figures = ", ".join(f"{name} {found[name]:.3f}" for name in FIGURES if name in found)
            print(f"{samples.stem:5} {features.split(':')[0]:10} {figures}", flush=True)


if __name__ == "__main__":
    main()
