"""`drakegpt doctor`: its tables and sentences, its JSON, and that it tells nothing secret."""

import re

import pytest

from drakegpt import files
from drakegpt.bench.doctor import examination, facts, speed, surroundings
from drakegpt.bench.doctor.checks import Finding
from drakegpt.compute import kernels
from drakegpt.models import registry

TOKEN = "KGAT_0123456789abcdef0123456789abcdef"


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    """One model, and nothing that depends on how busy the machine of the tests is."""
    monkeypatch.setattr(registry, "MODELS", {"BigramLM": registry.MODELS["BigramLM"]})
    monkeypatch.setattr(speed, "check_rate", lambda device: Finding("quick"))
    monkeypatch.setattr(surroundings, "check_busy", lambda: Finding("idle"))
    monkeypatch.setattr(surroundings, "check_memory", lambda _: Finding("enough"))
    monkeypatch.setattr(surroundings, "check_terminal", lambda: Finding("UTF-8"))


@pytest.fixture
def broken(monkeypatch):
    """A device whose products are off by 1 % at one size."""
    linear = kernels.linear
    monkeypatch.setattr(kernels, "linear", lambda x, weight, bias: linear(x, weight, bias) * (
        1.01 if weight.shape == (96, 32) else 1.0))  # fmt: skip


def test_a_healthy_machine_is_a_table_of_passes(drakegpt, home):
    home.mkdir()
    got = drakegpt("doctor", "-q")
    assert got.code == 0, got.err
    assert got.err == ""
    for fact in ("Python", "PyTorch", "data folder", "Kaggle token", "C++ compiler"):
        assert re.search(rf"│ {re.escape(fact)} +│ \S", got.out)
    for check in ("data folder", "device", "matrix products", "dropout", "BigramLM"):
        assert re.search(rf"│ {check} +│ +ok │ \S", got.out)
    assert "FAILED" not in got.out
    assert got.out.endswith("\n17 checks passed.\n")
    assert not list(home.iterdir())


def test_a_wrong_product_fails_with_its_sentence_and_the_exit_code(drakegpt, home, broken):
    home.mkdir()
    got = drakegpt("doctor", "-q")
    assert got.code == 1
    assert re.search(r"│ matrix products +│ +FAILED │ ", got.out)
    told = " ".join(got.out.split())
    assert "FAILED: cpu.products: " in told
    assert "FAILED: cpu.products.bfloat16: " in told
    assert "256 x 32 by 32 x 96 numbers is off by " in told
    assert "What to do: PyTorch or one of its libraries computes wrongly here" in told
    assert "15 checks passed, 2 FAILED." in told
    assert "Traceback" not in got.out + got.err


def test_each_fix_is_told_once(drakegpt, home, monkeypatch):
    monkeypatch.setattr(kernels, "dropout", lambda x, p: x)
    monkeypatch.setattr(kernels, "linear", lambda x, weight, bias: x @ weight.T * 1.01 + bias)
    got = drakegpt("doctor", "-q")
    assert got.code == 1
    assert got.out.count("FAILED: cpu.") == 3
    assert got.out.count("What to do: ") == 2  # in bfloat16 there is another way


def test_json_is_one_object_with_stable_names(drakegpt, home, broken):
    got = drakegpt("doctor", "--json", "--quiet")
    assert got.code == 1
    assert len(got.out.splitlines()) == 1
    assert set(got.json) == {"result", "facts", "checks"}
    assert got.json["result"] == "failed"
    assert list(got.json["facts"]) == [name for name, _, _ in facts._list_facts("auto")]
    checks = {check["name"]: check for check in got.json["checks"]}
    planned = [*examination._plan_surroundings("cpu"), *examination._plan_devices("cpu")]
    assert list(checks) == [each.name for each in planned]
    assert set(checks["cpu.products"]) == {
        "name", "subject", "device", "figure", "measured", "result", "problem", "fix", "seconds",
    }  # fmt: skip
    assert checks["cpu.products"]["measured"]["error"] > checks["cpu.products"]["measured"]["bound"]
    assert {check["result"] for check in checks.values()} == {"ok", "failed", "not tested"}


def test_a_figure_that_is_no_number_is_null(drakegpt, home, monkeypatch):
    monkeypatch.setattr(
        kernels, "linear", lambda x, weight, bias: (x @ weight.T + bias) * float("nan")
    )
    checks = {check["name"]: check for check in drakegpt("doctor", "--json", "-q").json["checks"]}
    assert checks["cpu.products"]["result"] == "failed"
    assert checks["cpu.products"]["measured"]["error"] is None


def test_no_token_is_shown(drakegpt, home, monkeypatch):
    """Neither Kaggle's nor that of Weights & Biases, of the environment or in files."""
    monkeypatch.setattr(examination, "_plan_devices", lambda _: iter(()))
    folder = home.parent / ".kaggle"
    folder.mkdir()
    (folder / "access_token").write_text(TOKEN + "file")
    key = "0123456789" * 4
    (home.parent / ".netrc").write_text(f"machine api.wandb.ai login user password {key}\n")
    (home.parent / ".netrc").chmod(0o600)
    environment = {"KAGGLE_USERNAME": "someone", "DRAKEGPT_DATA": TOKEN}
    told = []
    for options, token in (((), TOKEN), (("--json",), TOKEN), (("--json",), TOKEN * 2)):
        got = drakegpt("doctor", *options, KAGGLE_API_TOKEN=token, **environment)
        shown = got.out + got.err
        assert got.code == 0, shown
        for secret in (TOKEN, TOKEN[:12], key, "someone", str(home.parent)):
            assert secret not in shown
        told.append(got.json["facts"] if options else {})
    assert told[1]["kaggle"] == told[2]["kaggle"]  # not its length either
    assert told[1]["kaggle"] == "seen in KAGGLE_API_TOKEN, KAGGLE_USERNAME, ~/.kaggle/access_token"
    assert told[1]["wandb"].endswith("a key was seen")
    assert "DRAKEGPT_DATA" in told[1]["variables"]
    (folder / "access_token").unlink()
    (home.parent / ".netrc").unlink()
    told = drakegpt("doctor", "--json").json["facts"]
    assert told["kaggle"] == "not seen"
    assert "no key" in told["wandb"]


def test_a_missing_data_folder_is_told_and_not_made(drakegpt, home):
    got = drakegpt("doctor", "-q")
    assert got.code == 0
    assert "not tested: data_folder: ~/drakegpt does not exist yet" in got.out
    assert not home.exists()


def test_an_unwritable_data_folder_fails(drakegpt, home, monkeypatch):
    home.write_text("")
    got = drakegpt("doctor", "-q")
    assert got.code == 1
    assert "FAILED: data_folder: ~/drakegpt is not a folder." in got.out
    home.unlink()
    home.mkdir()
    create = files._create_file

    def refuse(path, place):
        if path.parent == home:
            raise PermissionError(13, "Permission denied", str(path))
        return create(path, place)

    monkeypatch.setattr(files, "_create_file", refuse)
    got = drakegpt("doctor", "-q")
    assert got.code == 1
    told = " ".join(got.out.split())
    assert "nothing can be written in ~/drakegpt: Permission denied." in told
    assert "What to do: Get write access there, or set DRAKEGPT_HOME to another folder." in told


def test_warnings_do_not_fail(drakegpt, home, monkeypatch):
    for name in ("check_busy", "check_terminal"):
        warned = Finding("odd", {}, "warning", f"{name} is odd.", "Do something.")
        monkeypatch.setattr(surroundings, name, lambda warned=warned: warned)
    monkeypatch.setattr(examination, "_plan_devices", lambda _: iter(()))
    home.mkdir()
    got = drakegpt("doctor", "-q")
    assert got.code == 0
    assert "warning: terminal: check_terminal is odd.\nwarning: busy: check_busy" in got.out
    assert got.out.count("What to do: Do something.") == 1
    assert got.out.endswith("\n3 checks passed, 2 warnings.\n")
    assert drakegpt("doctor", "--json").json["result"] == "warning"


def test_a_device_that_is_not_there_is_a_failed_check(drakegpt, home):
    got = drakegpt("doctor", "--device", "cuda", "-q")
    assert got.code == 1
    assert "FAILED: device: There is no cuda device" in got.out
    assert re.search(r"│ BigramLM +│ +ok │", got.out)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_it_fits_a_narrow_terminal(terminal, home, broken, columns):
    seen = terminal("doctor", columns=columns)
    assert seen.code == 1
    lines = seen.text.splitlines()
    assert all(len(line) <= columns for line in lines if line[:1] in "┏┃┡│└")
    told = " ".join(seen.text.split())
    for words in ("FAILED", "not tested", "matrix products", "BigramLM", "What to do: "):
        assert words in told


def test_the_template_of_a_bug_asks_for_it(pytestconfig):
    template = pytestconfig.rootpath / ".github" / "ISSUE_TEMPLATE" / "bug.md"
    assert "drakegpt doctor" in template.read_text(encoding="utf-8")
