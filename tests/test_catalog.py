from __future__ import annotations

import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

from gradcheck import catalog
from gradcheck.catalog import Backend, check_options, load_backends, read_manifest
from gradcheck.errors import GradcheckError, UsageError

ROOT = Path(__file__).parents[1]

GOOD = """
name = "toy"
framework = "toy-framework"
python = ">=3.9"
requires = ["toy-framework>=1,<2"]

[rollouts]
toy-scan = "scan"
toy-unroll = "unroll"

[options]
mode = { default = "slow", choices = ["slow", "fast"] }
depth = { default = -1, rollouts = ["scan"] }
rate = { default = 0.5 }
"""


@pytest.fixture
def manifest(tmp_path):
    def write(text: str = GOOD, folder: str = "toy", **files: str) -> Path:
        place = tmp_path / folder
        place.mkdir(parents=True)
        for name, content in {"backend_toml": text, **files}.items():
            (place / name.replace("_", ".")).write_text(content)
        return place

    return write


def test_five_of_the_shipped_backends_are_the_default():
    shipped = load_backends()
    assert {name: rollout for name, (backend, rollout) in shipped.items() if backend.default} == {
        "theano-scan": "scan",
        "theano-unroll": "unroll",
        "jax-scan": "scan",
        "jax-unroll": "unroll",
        "unroll": "unroll",
    }


def test_rollouts_of_one_framework_share_a_manifest():
    shipped = load_backends()
    assert shipped["jax-scan"][0] is shipped["jax-unroll"][0]


@pytest.mark.parametrize("name", ["theano", "pytensor", "jax", "numpy", "torch"])
def test_a_shipped_manifest_agrees_with_its_folder_and_its_extra(name):
    backend = read_manifest(ROOT / "backends" / name)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert backend.name == name
    assert backend.probe
    assert tuple(extras[name]) == backend.pins


def test_nothing_of_a_backend_is_imported():
    load_backends()
    assert not {"theano", "jax", "autograd"} & set(sys.modules)


def test_reads_a_manifest(manifest):
    backend = read_manifest(manifest())
    assert (backend.name, backend.framework, backend.default) == ("toy", "toy-framework", False)
    assert backend.requires == ("toy-framework>=1,<2",)
    assert backend.options["mode"].choices == ("slow", "fast")
    assert backend.options["depth"].rollouts == ("scan",)
    assert backend.pins == ()


def test_pins_are_lines_of_exact_versions(manifest):
    folder = manifest('pins = "pins.txt"\n' + GOOD, pins_txt="# why\na==1.0\n\nb==2  # because\n")
    assert read_manifest(folder).pins == ("a==1.0", "b==2")


def test_extra_folders_hold_a_manifest_or_folders_of_manifests(manifest, tmp_path):
    folder = manifest()
    assert load_backends([folder])["toy-scan"] == load_backends([tmp_path])["toy-scan"]
    assert "toy-scan" in load_backends([folder, tmp_path])  # the same folder twice is one backend


@pytest.mark.parametrize(("folder", "why"), [("nowhere", "does not exist"), (".", "has a backend.toml")])
def test_an_extra_folder_without_backends_is_a_usage_error(tmp_path, folder, why):
    with pytest.raises(UsageError, match="no backend in") as caught:
        load_backends([tmp_path / folder])
    assert why in caught.value.context


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('framework = "toy-framework"', "", "framework: is missing"),
        ('framework = "toy-framework"', "framework = 3", "framework: 3 is not a text"),
        ("framework =", "framwork =", "framwork: unknown key, did you mean 'framework'"),
        ('">=3.9"', '"three"', "python: Invalid specifier"),
        ('["toy-framework>=1,<2"]', '"toy-framework"', "requires: 'toy-framework' is not a list"),
        ('["toy-framework>=1,<2"]', '["toy framework"]', "requires: "),
        ('"scan"', '"loop"', "rollouts: toy-scan = 'loop'"),
        ("default = -1, ", "", "options: depth: has no default"),
        ('default = "slow"', 'default = "slw"', "options: mode: default 'slw' is not possible, did you mean 'slow'"),
        ("choices =", "choises =", "options: mode: unknown key 'choises', did you mean 'choices'"),
        ('["scan"]', '["scam"]', "options: depth: rollout 'scam'"),
        ('choices = ["slow", "fast"]', 'choices = "slow"', "options: mode: choices is not a list"),
        ("[rollouts]", 'process_options = ["mod"]\n[rollouts]', "process_options: there is no option 'mod', did you"),
        ("[rollouts]", "default = 1\n[rollouts]", "default: 1 is neither true nor false"),
        ("[rollouts]", 'pins = "gone.txt"\n[rollouts]', "pins: gone.txt cannot be read"),
        ("[rollouts]", 'pins = "pins.txt"\n[rollouts]', "pins: pins.txt: 'a>=1' is not of the form name==version"),
        ("[options]", "[env]\nA = 1\n[options]", "env: A = 1 is not a text"),
        ("[options]", "[options", "cannot be read"),
    ],
)
def test_a_bad_manifest_is_an_error_that_names_file_and_key(manifest, old, new, words):
    assert old in GOOD
    folder = manifest(GOOD.replace(old, new, 1), pins_txt="a>=1")
    with pytest.raises(GradcheckError) as caught:
        read_manifest(folder)
    assert str(caught.value).startswith(f"{folder / 'backend.toml'}: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD, "name: 'toy' is also the name of"),
        (GOOD.replace('"toy"', '"other"'), "rollouts.toy-scan: this name is taken by"),
    ],
)
def test_a_name_is_taken_once(manifest, text, words):
    with pytest.raises(GradcheckError, match=words):
        load_backends([manifest(), manifest(text, "other")])


def entry_point(monkeypatch, value: str) -> None:
    point = metadata.EntryPoint("toy", value, catalog.ENTRY_POINTS)
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == catalog.ENTRY_POINTS else [])


def test_an_entry_point_is_found_without_importing_it(manifest, monkeypatch, tmp_path):
    manifest(folder="toy_plugin/inner")
    for folder in ("toy_plugin", "toy_plugin/inner"):
        (tmp_path / folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    entry_point(monkeypatch, "toy_plugin.inner")
    assert load_backends()["toy-scan"][0].folder == tmp_path / "toy_plugin" / "inner"
    assert "toy_plugin" not in sys.modules


@pytest.mark.parametrize("value", ["no_such_package", "json"])
def test_an_entry_point_without_a_manifest_is_named(monkeypatch, value):
    entry_point(monkeypatch, value)
    with pytest.raises(GradcheckError, match=f"'toy' of gradcheck.backends names '{value}'"):
        load_backends()


@pytest.fixture
def toy(manifest) -> dict[str, tuple[Backend, str]]:
    backend = read_manifest(manifest())
    return {name: (backend, rollout) for name, rollout in backend.rollouts.items()}


@pytest.mark.parametrize("options", [{}, {"toy": {}}, {"toy": {"mode": "fast", "depth": 3, "rate": 1}}])
def test_good_options_have_no_problems(toy, options):
    assert check_options(options, toy) == []


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"tyo": {}}, "unknown group of options 'tyo', did you mean 'toy'?"),
        ({"toy": {"mod": 1}}, "toy has no option 'mod', did you mean 'mode'?"),
        ({"toy": {"xyz": 1}}, "toy has no option 'xyz' (there is mode, depth, rate)"),
        ({"toy": {"mode": "fats"}}, "option 'mode' of toy: 'fats' is not possible, did you mean 'fast'?"),
        ({"toy": {"depth": "3"}}, "option 'depth' of toy: '3' is not of type int"),
        ({"toy": {"depth": True}}, "option 'depth' of toy: True is not of type int"),
        ({"toy": {"rate": "x"}}, "option 'rate' of toy: 'x' is not of type float"),
    ],
)
def test_bad_options_are_named(toy, options, problem):
    [(place, told)] = check_options(options, toy)
    assert told == problem
    assert place[:2] == ("options", next(iter(options)))
