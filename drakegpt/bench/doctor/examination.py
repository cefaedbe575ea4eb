"""All checks of a machine, in order: what surrounds drakegpt, then each device.

PyTorch is imported in functions only: that it cannot be loaded, or has no such device, is
what a check may find.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from drakegpt.bench.doctor import surroundings
from drakegpt.bench.doctor.checks import Check, Finding, Planned, Result, find_worst, run_check
from drakegpt.bench.doctor.facts import Fact, collect_facts
from drakegpt.progress import Progress, silent

if TYPE_CHECKING:
    import torch


INSTALL_AGAIN = "Install PyTorch again: `python -m pip install --force-reinstall torch`."
REPORT = "Please report it, with this output."
USUAL = 40  # checks of one device, for the progress before they are known


@dataclass(frozen=True)
class Examination:
    """The facts about a machine, and the results of all checks."""

    facts: list[Fact]
    checks: list[Check]

    @property
    def result(self) -> Result:
        """The worst of the results; what was not tested does not count."""
        return find_worst([check.result for check in self.checks if check.result != "not tested"])

    def to_json(self) -> dict[str, Any]:
        """Return all of it."""
        return {
            "result": self.result,
            "facts": {fact.name: fact.value for fact in self.facts},
            "checks": [check.to_json() for check in self.checks],
        }


def examine(device: str, progress: Progress = silent) -> Examination:
    """Examine this machine; `device` is auto, cpu, cuda or mps.

    The CPU is examined whatever the device, for it draws all windows and random numbers of
    texts. No check can stop the others. `progress` is called with what is checked, and how
    many checks are done and in all.
    """
    progress("facts", 0, USUAL)
    facts, checks = collect_facts(device), list[Check]()
    for planned in _plan_surroundings(device):
        progress(planned.subject, len(checks), USUAL)
        checks.append(run_check(planned))
    works = checks[-1].result != "failed"
    rest = list(_plan_devices(device if works else "cpu"))
    total = len(checks) + len(rest)
    for planned in rest:
        progress(planned.subject, len(checks), total)
        checks.append(run_check(planned))
    return Examination(facts, checks)


def _plan_surroundings(device: str) -> Iterator[Planned]:
    """Yield the checks that need no arithmetic; the last one is of the device itself."""
    for name, subject, work in (
        ("data_folder", "data folder", surroundings.check_data_folder),
        ("terminal", "terminal", surroundings.check_terminal),
        ("memory", "memory", _check_memory),
        ("busy", "other programs", surroundings.check_busy),
    ):
        yield Planned(name, subject, "", work, REPORT)
    yield Planned("device", "device", "", partial(_check_device, device), INSTALL_AGAIN)


def _check_memory() -> Finding:
    try:
        import torch

        from drakegpt.compute.memory import get_available_memory
    except Exception:  # the check of the device says so
        return Finding("unknown without PyTorch", result="not tested")
    return surroundings.check_memory(get_available_memory(torch.device("cpu")))


def _check_device(name: str) -> Finding:
    """Load PyTorch, and let the device that `name` stands for do its first sum."""
    import torch

    from drakegpt.compute.device import choose_device

    device = choose_device(name)
    total = torch.arange(101, device=device).sum().item()
    if total == 5050:
        return Finding(f"{device.type}, PyTorch {torch.__version__}")
    problem = f"{device.type} adds the numbers to 100 up to {total}, not 5050."
    return Finding("wrong sum", {}, "failed", problem, _advise(device))


def _advise(device: "torch.device") -> str:
    from drakegpt.bench.doctor.arithmetic import advise

    return advise(device)


def _plan_devices(name: str) -> Iterator[Planned]:
    """Yield the checks of the CPU's arithmetic, then those of the device that `name` means."""
    try:
        import torch

        from drakegpt.compute.device import choose_device
    except Exception:  # the check of the device says so
        finding = Finding("PyTorch cannot be loaded", result="not tested")
        yield Planned("cpu", "arithmetic", "cpu", lambda: finding, INSTALL_AGAIN)
        return
    chosen, cpu = choose_device(name), torch.device("cpu")
    yield from _plan_device(cpu, "" if chosen == cpu else " on cpu")
    if chosen != cpu:
        yield from _plan_device(chosen, f" on {chosen.type}")


def _plan_device(device: "torch.device", suffix: str) -> Iterator[Planned]:
    """Yield the checks of a device; `suffix` tells it from another one."""
    from drakegpt.bench.doctor import arithmetic, best_recipe, dropout, speed, steps, texts
    from drakegpt.models.registry import MODELS

    def plan(name: str, subject: str, work: Callable[..., Finding], *given: str) -> Planned:
        bound = partial(work, *given, device)
        full, shown = f"{device.type}.{name}", f"{subject}{suffix}"
        return Planned(full, shown, device.type, bound, _advise(device))

    yield plan("products", "matrix products", arithmetic.check_products)
    yield plan("products.bfloat16", "matrix products", arithmetic.check_bfloat16_products)
    yield plan("norm", "layer norm", arithmetic.check_norm)
    yield plan("attention", "attention", arithmetic.check_attention)
    yield plan("dropout", "dropout", dropout.check_dropout)
    yield plan("muon", "Muon", best_recipe.check_muon)
    yield plan("rotary", "rotary positions", best_recipe.check_rotary)
    for model in MODELS:
        yield plan(f"{model}.step", model, steps.check_step, model)
        yield plan(f"{model}.bfloat16", model, steps.check_bfloat16, model)
        yield plan(f"{model}.text", model, texts.check_text, model)
        yield plan(f"{model}.resume", model, steps.check_resuming, model)
    yield plan("speed", "speed", speed.check_rate)
    if device.type != "cpu":
        yield plan("speed.against_cpu", "speed", speed.check_faster_than_cpu)
