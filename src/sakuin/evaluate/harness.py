"""lm-eval's own command line with the model `sakuin` in it:

`python -m sakuin.evaluate.harness run --model sakuin --model_args pretrained=smollm2,configuration=balanced
--tasks ...`. For Python: `SakuinLM`, the model, and `TASKS`, the folder of our tasks. docs/lm-eval.md.
"""

from __future__ import annotations

from sakuin.evaluate.answers.harness_model import TASKS, SakuinLM

__all__ = ["TASKS", "SakuinLM", "main"]


def main() -> None:
    """lm-eval's command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
