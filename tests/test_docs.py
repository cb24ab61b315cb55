"""The documentation: every command and code block is run or checked, every setting described, every link fits."""

import doctest
import pkgutil
import re
import sys
from unittest import mock

import pytest
from docs_blocks import REPO, SHELL, Block, blocks, calls, files, script
from docs_rules import Place, Store, follow

import datasets
import trainers
from scripts.docs import check_site, config_reference, needs, pages
from tlla.backbones import BACKBONES
from tlla.errors import InputError
from tlla.methods import METHODS
from tlla.rules import RULES

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
PROGRAMS = r"^(\$ )?(python3?|pip|bash|git|torchrun|mkdocs|export) "
PACKAGES = "tlla|trainers|datasets|report|sweeps|benchmarks"
FOLDERS = rf"{PACKAGES}|toolkit|configs|scripts|docs|tests|assets"
NEEDS = needs.needs_table()  # before a page adds a method or a trainer


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
        test = doctest.DocTestParser().get_doctest(block.text, names, block.place, block.place, 0)
        failed, _ = doctest.DocTestRunner(Near(), optionflags=FLAGS).run(test, clear_globs=False)
        assert not failed, f"{block.place}: the output is another one"
        names.update(test.globs)
        return
    module = re.match(r"# (\S+)\.py\n", block.text)
    if module:
        name = module[1].replace("/", ".")
        names = {"__name__": name, "__package__": name.rpartition(".")[0]}
    exec(compile(block.text, block.place, "exec"), names)


@pytest.mark.parametrize("file", files())
def test_every_command_of_a_page_works(file, store, tmp_path, monkeypatch):
    place = Place(tmp_path, store)
    monkeypatch.chdir(place.root)
    monkeypatch.setitem(sys.modules, "tlla.trainers", trainers)  # as installed
    monkeypatch.setitem(sys.modules, "tlla.datasets", datasets)
    names: dict = {}
    with (
        mock.patch.dict(METHODS),
        mock.patch.dict(RULES),
        mock.patch.dict(BACKBONES),
    ):  # what a page registers is not the project's
        for block in blocks(file):
            named = re.match(r"# (\w\S*\.(?:yaml|csv|txt))\n", block.text)
            if block.language in SHELL:
                for call in calls(script(block), place.root, place.home):
                    print(f"{block.place}: {' '.join(call[0])}")  # shown when it fails
                    follow(*call, place)
            elif block.language == "python":
                run_python(block, names)
            elif named:
                (place.root / named[1]).write_text(block.text)
            else:
                assert not re.search(PROGRAMS, block.text, re.M), f"{block.place}: mark it as bash"


@pytest.mark.parametrize("file", files())
def test_every_file_and_module_that_a_page_names_exists(file):
    text = (REPO / file).read_text(encoding="utf-8")
    made = {re.match(r"(?:# (\S+))?", block.text)[1] for block in blocks(file)}  # an example's file
    for path in re.findall(rf"(?<![\w/.$<-])(?:{FOLDERS})/[\w./-]+(?![\w*<{{])", text):
        path = path.rstrip(".")
        assert (REPO / path).exists() or path in made, f"{file} names {path}"
    for name in re.findall(rf"`((?:{PACKAGES})(?:\.\w+)+)", text):
        if not name.endswith((".md", ".py", ".csv")):
            pkgutil.resolve_name(re.sub(r"^tlla\.(?=trainers|datasets)", "", name))


def test_a_wrong_command_fails(store, tmp_path, capsys):
    place = Place(tmp_path, store)
    for text, part in (
        ("python -m unheard_of", "unheard_of"),
        ("python train.py --trainer SAPT --config-file configs/none.yaml", "there is no config file"),
        ("python train.py --trainer SAPT TRAINER.SAPT.RO 1", "TRAINER.SAPT.RHO"),
        ("python train.py --no-such-flag", "unrecognized arguments"),
        ("python train.py --trainer SAPT --dataset-config-file configs/datasets/imagenet_r.yaml", "no training images"),
        ("python -m datasets check OxfordPet --root data", "OxfordPets"),
        ("python -m benchmarks.views --no-such-flag", "unrecognized arguments"),
        ("bash scripts/sapt/train.sh no_such_dataset vit_b16_c4_ep50", "no_such_dataset"),
        ("pip install -r none.txt", "none.txt"),
        ("pip install 'tlla[none]'", "none"),
    ):
        with pytest.raises((AssertionError, ImportError, InputError)) as error:
            follow(*calls(text, place.root, place.home)[-1], place)
        assert part in f"{error.value}{capsys.readouterr()}", text
    with pytest.raises(AssertionError, match="curl: command not found"):
        calls("curl example.org", place.root, place.home)


def test_a_shell_block_means_what_it_means_to_a_reader(tmp_path):
    text = "export DATA=~/d  # a comment\npython a \\\n    --b $DATA 'c d'\necho x | pip\n"
    first, second = calls(text, tmp_path, tmp_path)
    assert first == (["python", "a", "--b", f"{tmp_path}/d", "c d"], tmp_path, {"DATA": f"{tmp_path}/d"})
    assert second[0] == ["pip"] and (tmp_path / "stdin").read_text() == "x\n"
    console = Block("x.md:1", "console", "$ python a \\\n    b\nprinted\n$ pip c\n")
    assert script(console) == "python a \\\n    b\npip c\n"


def test_every_setting_is_on_the_page_with_a_description():
    values, described = config_reference.read_descriptions()
    page = config_reference.reference_page()
    for key, value in values.items():
        assert described[key], f"{key} has no comment beside the line that sets it"
        row = next((line for line in page.splitlines() if line.startswith(f"| `{key}` |")), None)
        assert row, f"{key} is not on the page"
        assert str(value).replace("|", "\\|") in row, f"{key} has another default on the page"
    assert described["TRAINER.SAPT.RHO"].startswith("radius of the perturbation")
    assert described["TRAINER.TLLA.TOP_S"] == described["TRAINER.STSS.TOP_S"] == "views that vote"
    assert described["DATASET.CLASSNAMES"].startswith("ImageNet and its variants")
    assert described["SEED"].startswith("0 or more: fixed") and described["TRAINER.COCOOP.PREC"].endswith("always fp32")
    assert described["DATALOADER.TRAIN_U.SAME_AS_X"].startswith("True: the loader of unlabelled")


def test_what_each_method_needs_is_on_its_page():
    assert NEEDS in (REPO / "docs/methods.md").read_text(), "see scripts/docs/needs.py"


def test_links_of_a_page_fit_the_site():
    with pytest.raises(ValueError, match="docs/figures/x.png"):
        pages.fit_links("![f](docs/figures/x.png)", "README.md")
    text = "[a](docs/start.md) [b](CONTRIBUTING.md#add-a-dataset) [c](train.py) [d](https://x.org) "
    fitted = pages.fit_links(text + "![f](docs/figures/results.png)\n```\n[e](no.md)\n```\n", "README.md")
    assert "[a](start.md) [b](contributing.md#add-a-dataset) c [d](https://x.org)" in fitted
    assert "![f](figures/results.png)" in fitted and "[e](no.md)" in fitted
    assert pages.fit_links("[r](../../README.md)", "docs/how-to/x.md") == "[r](../index.md)"


def test_a_page_includes_a_section_with_its_links_moved():
    text = "# A\n[x](docs/start.md)\n## B b\n[y](README.md)\n```\n# no heading\n```\n### C\nend\n## D\nlast\n"
    assert pages.section(text, "b-b") == "[y](README.md)\n```\n# no heading\n```\n### C\nend"
    with pytest.raises(ValueError, match="#none"):
        pages.section(text, "none")
    shown = pages.include("<!-- include ../README.md -->\n", "docs/index.md")
    assert "](methods.md)" in shown and "bash scripts/demo.sh" in shown


def test_the_index_has_every_page():
    folder = REPO / "docs"
    index = (folder / "index.md").read_text()
    names = {page.relative_to(folder).as_posix() for page in folder.rglob("*.md")} - {"index.md"}
    assert [name for name in sorted(names) if f"]({name}" not in index] == []


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
    listed = re.findall(r"^ +- [^:]+: (\S+\.md)$", (REPO / "mkdocs.yml").read_text(), re.M)
    written = {path.relative_to(REPO / "docs").as_posix() for path in (REPO / "docs").rglob("*.md")}
    assert written | set(pages.GENERATED) | {"reference/config.md"} == set(listed) and len(set(listed)) == len(listed)
