"""`python -m models.train RECIPE --out FOLDER`: trains a recipe, or resumes an unfinished run."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

import torch

from convoy.files import write_file
from models.datasets import load_data
from models.train.recipes import RECIPES, find_recipe, full_budget, with_epochs
from models.train.trainer import Trainer

log = logging.getLogger("convoy.train")


def main() -> None:
    """Trains the recipe named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__)
    parser.add_argument("recipe", help=f"one of: {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; an unfinished run in it is resumed")
    parser.add_argument(
        "--budget",
        choices=("short", "full"),
        default="short",
        help="full: 200 epochs, for a GPU  [default: %(default)s]",
    )
    parser.add_argument("--epochs", type=int, help="number of epochs  [default: by the recipe and --budget]")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="threads of torch  [default: %(default)s]"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(arguments.threads)
    recipe = find_recipe(arguments.recipe)
    if arguments.budget == "full":
        recipe = full_budget(recipe)
    if arguments.epochs is not None:
        recipe = with_epochs(recipe, arguments.epochs)
    out, file = arguments.out, arguments.out / "result.json"
    if file.exists() and not (out / "checkpoint.pt").exists():
        parser.error(f"{file} was not written by this command; choose another --out or move it away")
    result = Trainer(recipe, load_data(recipe.dataset), out).run()
    write_file(file, json.dumps(result) + "\n")
    log.info("%s: validation %.2f %%, test %.2f %%", recipe.name, 100 * result["held_out"], 100 * result["test"])


if __name__ == "__main__":
    main()
