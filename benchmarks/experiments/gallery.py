"""Pictures for the documentation: truth, data and every method, one figure for each task.

Run: python benchmarks/experiments/gallery.py --data photos:crops64.h5 --prior PRIOR --htransform HTRANSFORM \
    --out docs/images/photographs
A figure that is there is drawn again only with --overwrite. Data and seeds are those of the benchmark `photos64`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from deft_ct.methods.method_text import parse_method
from deft_ct.methods.presets import shipped_presets
from deft_ct.methods.registry import NetworkChoice
from deft_ct.problems.natural import NaturalProblem
from deft_ct.problems.natural_data import natural_problems
from deft_ct.problems.natural_pictures import data_pictures
from deft_ct.problems.options import ProblemOptions
from deft_ct.reconstructor import UnsupportedError
from deft_ct.report.figures import FOOTER_OF_PHOTOGRAPHS, save_png
from deft_ct.report.photograph_figures import gallery_figure
from deft_ct.workflows.natural_networks import NaturalNetworks
from deft_ct.workflows.suite import read_suite


def draw(problem: NaturalProblem, methods: Sequence[str], choice: NetworkChoice, path: Path) -> list[str]:
    """Draw the figure of one task.

    Args:
        problem: one batch of photographs.
        methods: text for :func:`~deft_ct.methods.method_text.parse_method`.
        choice: of the networks.
        path: of the PNG.

    Returns:
        A line on each method that cannot be used with the task.
    """
    networks = NaturalNetworks(choice).for_task(problem.name)
    restored: dict[str, torch.Tensor] = {}
    left_out = []
    (batch,) = problem.batches
    for text in methods:
        name, options = parse_method(text)
        preset = problem.name if problem.name in shipped_presets(name) else None
        method = networks.build(name, options, preset=preset)
        try:
            result = method.reconstruct(batch.y, batch.measurement, seed=problem.seed, image_ids=batch.image_ids)
        except UnsupportedError as error:
            left_out.append(f"{problem.name}: {text} is left out ({error})")
            continue
        restored[text] = result.mean.cpu()
    truth = torch.from_numpy(problem.truth)
    data = data_pictures(batch.y, batch.measurement.operator)
    save_png(
        gallery_figure(truth, data, restored, title=f"{problem.name}; {problem.data}"),
        path,
        comment=FOOTER_OF_PHOTOGRAPHS,
    )
    return left_out


def main(words: Sequence[str] | None = None) -> None:
    """Draw the figures."""
    suite = read_suite("photos64")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="photographs; those of the suite photos64 by default")
    parser.add_argument("--tasks", nargs="+", default=suite.task_list)
    parser.add_argument("--methods", nargs="+", default=["tv", "diffpir", "dps:steps=100", "deft"])
    parser.add_argument("--count", type=int, default=3, help="photographs of each figure")
    parser.add_argument("--every", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prior", default=None)
    parser.add_argument("--htransform", default=None)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    given = parser.parse_args(words)
    choice = NetworkChoice(prior=given.prior, htransform=given.htransform)
    for text in given.methods:
        NaturalNetworks(choice).check(parse_method(text)[0])
    options = ProblemOptions(every=given.every, limit=given.count, seed=given.seed, batch_size=given.count)
    for problem in natural_problems(given.data or suite.data_names[0], given.tasks, options):
        path = given.out / f"{problem.name}.png"
        if path.exists() and not given.overwrite:
            print(f"{path} is there")
            continue
        assert isinstance(problem, NaturalProblem)
        for line in draw(problem, given.methods, choice, path):
            print(line)
        print(f"written to {path}")


if __name__ == "__main__":
    main()
