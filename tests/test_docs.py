"""The documentation: every command and code block is run or checked, every setting described, every link fits."""

import doctest
import re
import sys
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
import yaml
from docs_blocks import REPO, SHELL, Bash, Block, blocks, commands, files
from docs_rules import RULES, Place, Store, answer

import datasets
import trainers
from scripts.docs import check_site, config_reference, pages
from tlla.backbones import BACKBONES
from tlla.methods import METHODS

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PROGRAMS = r"^(\$ )?(python3?|pip|bash|git|torchrun|mkdocs|export) "
NAMES = {  # what a page's code is about, for blocks that are not whole programs
    "README.md": lambda: {"view_features": unit(2, 64, 16), "text_features": unit(9, 5, 16)},
}
USED: dict[str, set] = {}  # page -> rules


def unit(*shape: int) -> torch.Tensor:
    """Random features of length 1."""
    return F.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


class Near(doctest.OutputChecker):
    """Takes numbers that differ by a tenth or by 0.01 for equal: other machines round differently."""

    def check_output(self, want: str, got: str, flags: int) -> bool:
        number = r"(?<![\w.])\d+(?:\.\d+)?(?!\w)"
        pairs = zip(re.findall(number, want), re.findall(number, got), strict=False)
        texts = (re.sub(number, "#", text) for text in (want, got))
        near = all(abs(float(a) - float(b)) <= max(0.01, 0.1 * float(a)) for a, b in pairs)
        return super().check_output(want, got, flags) or (near and super().check_output(*texts, flags))


def run_python(block: Block, names: dict) -> None:
    """Runs a block; one that is a file of the project (`# tlla/x.py`) as that module, >>> lines as a doctest."""
    if block.text.startswith(">>>"):
        test = doctest.DocTestParser().get_doctest(block.text, names, str(block), block.file, block.line)
        failed, _ = doctest.DocTestRunner(Near(), optionflags=FLAGS).run(test, clear_globs=False)
        assert not failed, f"{block}: the output is another one"
        names.update(test.globs)
        return
    module = re.match(r"# (\S+)\.py\n", block.text)
    if module:
        name = module[1].replace("/", ".")
        names = {"__name__": name, "__package__": name.rpartition(".")[0]}
    exec(compile(block.text, str(block), "exec"), names)


def run_page(file: str, store: Store, folder, monkeypatch) -> None:
    """Runs all blocks of a page in one folder, in order."""
    used = USED.setdefault(file, set())
    place = Place(folder, store)
    bash = Bash(folder, lambda call: answer(call, place, used))
    monkeypatch.chdir(place.root)
    monkeypatch.setitem(sys.modules, "tlla.trainers", trainers)  # as installed
    monkeypatch.setitem(sys.modules, "tlla.datasets", datasets)
    names = NAMES.get(file, dict)()
    for block in blocks(file):
        named = re.match(r"# (\w\S*\.(?:yaml|csv|txt))\n", block.text)
        if block.language in SHELL:
            done = bash.run(commands(block), place.root, place.home)
            assert done.returncode == 0, f"{block} fails:\n{block.text}\n{done.stdout[-2000:]}"
        elif block.language == "python":
            run_python(block, names)
        elif named:
            (place.root / named[1]).write_text(block.text)


@pytest.mark.parametrize("file", files())
def test_every_command_of_a_page_works(file, store, tmp_path, monkeypatch):
    with mock.patch.dict(METHODS), mock.patch.dict(BACKBONES):  # what a page registers is not the project's
        run_page(file, store, tmp_path, monkeypatch)


def test_no_rule_is_stale(request):
    if len(USED) < len(files()):
        pytest.skip("needs the commands of all pages")
    unused = [rule.pattern for rule in RULES if not any(rule in used for used in USED.values())]
    assert not unused, f"no page has a command for these rules of tests/docs_rules.py: {unused}"


@pytest.mark.parametrize("file", files())
def test_no_command_hides_in_a_block_without_language(file):
    for block in blocks(file):
        if block.language not in (*SHELL, "python"):
            assert not re.search(PROGRAMS, block.text, re.M), f"{block}: mark it as bash"


def test_a_command_that_no_rule_knows_fails(store, tmp_path):
    place, used = Place(tmp_path, store), set()
    bash = Bash(tmp_path, lambda call: answer(call, place, used))
    for script, part in (
        ("python -m unheard_of", "no rule in tests/docs_rules.py"),
        ("curl example.org", "curl: command not found"),
        ("python train.py --trainer SAPT --config-file configs/none.yaml", "there is no config file"),
        ("python train.py --trainer SAPT TRAINER.SAPT.RO 1", "TRAINER.SAPT.RHO"),
        ("python train.py --no-such-flag", "arguments are refused"),
        ("python -m benchmarks.views --no-such-flag", "error"),
        ("bash scripts/sapt/train.sh no_such_dataset vit_b16_c4_ep50", "no_such_dataset"),
        ("pip install -r none.txt", "none.txt"),
        ("pip install 'tlla[none]'", "none"),
    ):
        done = bash.run(script, place.root, place.home)
        assert done.returncode != 0 and part in done.stdout, (script, done.stdout)


def test_a_shell_block_means_what_it_means_to_a_reader(store, tmp_path):
    seen = []
    place = Place(tmp_path, store)
    bash = Bash(tmp_path, lambda call: (seen.append(call), (0, "said\n"))[1])
    script = "export DATA=~/d  # a comment\npython a \\\n    --b $DATA 'c d'\npip x | cat\n"
    assert bash.run(script, place.root, place.home).stdout == "said\nsaid\n"
    assert seen[0].args == ("a", "--b", f"{place.home}/d", "c d") and seen[0].env["DATA"] == f"{place.home}/d"
    assert seen[1].program == "pip"
    console = Block("x.md", 1, "console", "$ python a \\\n    b\nprinted\n$ pip c\n")
    assert commands(console) == "python a \\\n    b\npip c\n"


def test_every_setting_is_on_the_page_with_a_description():
    cfg, described = config_reference.read_descriptions()
    page = config_reference.reference_page()
    for key, _, value in config_reference.config_leaves(cfg):
        assert described[key], f"{key} has no comment beside the line that sets it"
        row = next((line for line in page.splitlines() if line.startswith(f"| `{key}` |")), None)
        assert row, f"{key} is not on the page"
        assert str(value).replace("|", "\\|") in row, f"{key} has another default on the page"
    assert described["TRAINER.SAPT.RHO"].startswith("radius of the perturbation")
    assert described["TRAINER.TLLA.TOP_S"] == described["TRAINER.STSS.TOP_S"] == "views that vote"
    assert described["DATASET.CLASSNAMES"].startswith("ImageNet and its variants")
    assert described["DATALOADER.TRAIN_U.SAME_AS_X"].startswith("True: the loader of unlabelled")


def test_links_of_a_page_fit_the_site():
    text = "[a](docs/start.md) [b](CONTRIBUTING.md#add-a-dataset) [c](train.py) [d](https://x.org) "
    text += "![f](docs/figures/x.png)"
    with pytest.raises(ValueError, match="docs/figures/x.png"):
        pages.fit_links(text, "README.md")
    text = text.replace("x.png", "results.png") + "\n```\n[e](no.md)\n```\n"
    fitted = pages.fit_links(text, "README.md")
    assert "[a](start.md) [b](contributing.md#add-a-dataset) c [d](https://x.org)" in fitted
    assert "![f](figures/results.png)" in fitted and "[e](no.md)" in fitted
    assert pages.fit_links("[r](../../README.md)", "docs/how-to/x.md") == "[r](../index.md)"


def test_a_page_includes_a_section_with_its_links_moved():
    text = "# A\n[x](docs/start.md)\n## B b\n[y](README.md)\n```\n# no heading\n```\n### C\nend\n## D\nlast\n"
    assert pages.section(text, "b-b") == "[y](README.md)\n```\n# no heading\n```\n### C\nend"
    with pytest.raises(ValueError, match="#none"):
        pages.section(text, "none")
    shown = pages.include("<!-- include ../README.md -->\n", "docs/index.md")
    assert "(start.md)" not in shown and "](methods.md)" in shown and "bash scripts/demo.sh" in shown


def test_everything_that_a_page_loads_from_elsewhere_is_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<link rel="canonical" href="https://ok.org"><a href="https://ok.org">x</a><script src="assets/a.js"></script>'
        '<script src="https://one.org/a.js"></script><link rel="stylesheet" href="//two.org/a.css">'
        '<img src="a.png" srcset="a.png 1x, https://three.org/b.png 2x"><style>@import "https://four.org/x.css"</style>'
        '<p style="background: url(https://five.org/x.png)">https://ok.org</p>'
    )
    (tmp_path / "b.css").write_text("@font-face { src: url('https://six.org/f.woff') }")
    found = check_site.external_links(tmp_path)
    assert len(found) == 6 and not any("ok.org" in address for address in found)
    assert check_site.main(str(tmp_path)) == 1
    (tmp_path / "a.html").write_text("<p>nothing</p>")
    (tmp_path / "b.css").unlink()
    assert check_site.main(str(tmp_path)) == 0


def test_every_page_has_its_place_in_the_navigation():
    def paths(part) -> list[str]:
        if isinstance(part, str):
            return [part]
        return [path for one in (part if isinstance(part, list) else part.values()) for path in paths(one)]

    listed = paths(yaml.safe_load((REPO / "mkdocs.yml").read_text())["nav"])
    written = {path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs").rglob("*.md")}
    assert written | set(pages.GENERATED) | {"reference/config.md"} == set(listed) and len(set(listed)) == len(listed)
