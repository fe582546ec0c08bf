"""Run one of the measurements: bench-512 on a CPU, Qwen3-4B's shape on a GPU, or any model and adapter."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from backbone.bench.cpu import FULL, QUICK, RATIOS, TARGETS, measure_ratios
from backbone.bench.gpu import TARGETS as GPU_TARGETS
from backbone.bench.gpu import measure_gpu
from backbone.bench.model import measure
from backbone.errors import ConfigError
from backbone.loading import load_backbone
from backbone.ops.delta_rule import has_native

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a measurement as a table or as JSON."""
    options = _parser().parse_args(arguments)
    if options.what == "cpu":
        _print_ratios(measure_ratios(QUICK if options.quick else FULL, options.only), as_json=options.json)
    elif options.what == "gpu":
        _print_gpu(as_json=options.json)
    else:
        _print_overhead(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m backbone.bench", description=__doc__)
    parts = parser.add_subparsers(dest="what", required=True)
    cpu = parts.add_parser("cpu", help="the fixed case bench-512, on one CPU thread")
    cpu.add_argument("--only", nargs="+", choices=RATIOS, default=RATIOS, metavar="RATIO", help=", ".join(RATIOS))
    cpu.add_argument("--quick", action="store_true", help="measure little: does every part run?")
    model = parts.add_parser("model", help="any model and adapter")
    model.add_argument("--model", help="hub name or path; the bundled backbone if left out")
    model.add_argument("--adapter", help="adapter of the model")
    model.add_argument("--tokens", type=int, default=4096, help="prompt length")
    model.add_argument("--repeats", type=int, default=5, help="runs of which the median is taken")
    gpu = parts.add_parser("gpu", help="Qwen3-4B's shape, random bfloat16 weights, on a GPU")
    for part in (cpu, gpu, model):
        part.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _print_ratios(ratios: dict[str, float], *, as_json: bool) -> None:
    print(f"tokens are decoded by {'machine code' if has_native() else 'torch'}", file=sys.stderr)
    if as_json:
        print(json.dumps(ratios))
        return
    print(f"{'with memory ÷ frozen':<22}{'ratio':>8}{'target':>9}")
    for name, ratio in ratios.items():
        target = TARGETS[name]
        print(f"{name:<22}{ratio:>8.3f}{'' if target is None else f'≤ {target:.2f}':>9}")


def _print_gpu(*, as_json: bool) -> None:
    found: dict[str, dict[str, float]] = {}
    try:
        for tokens, ratios in measure_gpu():
            found[str(tokens)] = ratios
            # At once, so that a later prompt that does not fit loses nothing.
            print(json.dumps({str(tokens): ratios}), file=sys.stderr, flush=True)
    except ConfigError as error:
        sys.exit(str(error))
    if as_json:
        print(json.dumps(found))
        return
    print(f"{'prompt':>8}" + "".join(f"{name:>16}" for name in GPU_TARGETS))
    for prompt, ratios in found.items():
        print(f"{prompt:>8}" + "".join(f"{ratios[name]:>16.3f}" for name in GPU_TARGETS))
    print(f"{'target':>8}" + "".join(f"{target:>16.2f}" for target in GPU_TARGETS.values()))


def _print_overhead(options: argparse.Namespace) -> None:
    model = load_backbone(options.model, adapter=options.adapter).model
    results = measure(model, tokens=options.tokens, repeats=options.repeats)
    if options.json:
        print(json.dumps([asdict(result) | {"ratio": result.ratio} for result in results]))
        return
    for result in results:
        print(
            f"{result.what} of {result.tokens} tokens: frozen {result.frozen_seconds:.3f} s, "
            f"with memory {result.memory_seconds:.3f} s, ratio {result.ratio:.2f}"
        )


if __name__ == "__main__":
    main()
