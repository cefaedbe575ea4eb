"""Short texts that a model writes while it is trained, kept beside the losses of that moment.

A run keeps them in its metrics, so that one can read what a loss of 2.5, 2.0 or 1.5 nats is
like. They have the run's seed and no prompt, and a random generator of their own: training goes
on as if they had not been written. Which evaluations have one depends on the settings and the
iteration alone, not on a clock, so that a resumed run has the same ones.

Here: when a text is written. Not here: generation itself (`generation.text`), the metrics they
are kept in (`session`), and reading them (`stored_samples`).
"""

from collections.abc import Sequence

from drakegpt.compute.device import choose_device
from drakegpt.config import TrainConfig
from drakegpt.data.tokenizers.base import Tokenizer
from drakegpt.errors import RunError, is_out_of_memory
from drakegpt.generation.text import generate_text
from drakegpt.models.layers import LanguageModel
from drakegpt.models.size import count_total_parameters
from drakegpt.training.reports import Evaluation

LENGTH = 160  # characters of a text, at most
CHARACTERS_PER_TOKEN = 3  # of tokens that are not characters
# Training tokens before which a model has learned nothing that a text could show.
FIRST_TOKENS = 2**13
# A text is due whenever the iterations have grown by this factor: the loss falls with their
# logarithm.
GROWTH = 3
# On a CPU one is also due once the operations of the steps since the last one are this many times
# its own, in which `RECORDING` counts what a text costs beside its arithmetic: recording a step
# of generation. Reading one token at a time is slower than reading many, by `SINGLE`.
STEPS_PER_TEXT = 128
RECORDING, SINGLE = 2 * 10**9, 20


class SampleWriter:
    """Writes the samples of one run: called at each evaluation, writes a text if one is due."""

    def __init__(self, config: TrainConfig, tokenizer: Tokenizer) -> None:
        self._config, self._tokenizer = config, tokenizer
        by_character = tokenizer.unit == "character"
        self._length = LENGTH if by_character else LENGTH // CHARACTERS_PER_TOKEN
        self._on_cpu = choose_device(config.device).type == "cpu"
        windows = config.batch_size * config.grad_accumulation
        self._step_tokens = windows * config.context_length
        parameters = count_total_parameters(config.model_settings(tokenizer.vocab_size))
        step = 6 * parameters * self._step_tokens
        text = RECORDING + SINGLE * 2 * parameters * self._length
        self._spacing = -(-STEPS_PER_TEXT * text // step)  # iterations

    def __call__(
        self, model: LanguageModel, iteration: int, earlier: Sequence[Evaluation], *, last: bool
    ) -> str:
        """Write a text with `model`, or return an empty one if none is due.

        `last`: training ends here. Memory that is too small for a text, and weights that
        predict nothing, give an empty one too. The model's mode is restored.
        """
        before = next((each.iteration for each in reversed(earlier) if each.sample), None)
        if not self._is_due(iteration, before, last=last):
            return ""
        was_training = model.training
        model.eval()
        try:
            pieces = generate_text(
                model, self._tokenizer, "", self._length, seed=self._config.seed
            )  # fmt: skip
            return "".join(pieces)[:LENGTH]
        except RunError:  # its logits are NaN
            return ""
        except (MemoryError, RuntimeError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            return ""
        finally:
            model.train(was_training)

    def _is_due(self, iteration: int, before: int | None, *, last: bool) -> bool:
        """Whether a text is due, given the iteration of the one before, if there is one."""
        if iteration * self._step_tokens < FIRST_TOKENS:
            return False
        if before is None or last or iteration >= GROWTH * before:
            return True
        return self._on_cpu and iteration - before >= self._spacing
