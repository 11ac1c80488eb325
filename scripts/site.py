"""Makes the pages of the site that are not in docs/, while mkdocs builds it (`hooks` in mkdocs.yml).

- README and other texts that lie elsewhere in the repository become pages, and files that texts link to are copied; the
  links are mended.
- Every group and option of conf/ becomes a page of the reference, in the words of its YAML file and of its class.
- Every module of the rooms that users call or extend becomes a page of the reference, which mkdocstrings fills.
- Formulas become MathML, so that no script has to be fetched for them.
"""

import ast
import html
import os
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
CONF, SOURCE = ROOT / "conf", ROOT / "src"
NOT_IN_DOCS = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
    "examples/plugin/README.md": "plugin.md",
}
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROOMS = ("diffusion", "samplers", "edm", "networks", "data", "metrics", "figures", "loggers", "checkpoints")
# Scripts that the theme lets browsers fetch, by the names under which `make docs` puts them into build/.
MERMAID, WORKER = "mermaid.min.js", "iframe-worker.js"
WORKER_ELSEWHERE = "https://unpkg.com/iframe-worker/shim"  # searches in pages that are opened as files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Fill the reference's places in the navigation with the pages that are made: the index first."""
    made = {"reference/settings/": [*settings_pages()], "reference/python/": [*python_pages()]}
    for section in config.nav or []:
        for entries in section.values() if isinstance(section, dict) else ():
            for entry in entries:
                for title, place in entry.items() if isinstance(entry, dict) else ():
                    entry[title] = made.get(place, place)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made, and the scripts that are at hand."""
    made = {place: (ROOT / name).read_text() for name, place in NOT_IN_DOCS.items()}
    made |= settings_pages() | python_pages()
    for page in [*ROOT.glob("docs/**/*.md"), *(ROOT / name for name in NOT_IN_DOCS)]:
        for link in LINK.findall(page.read_text()):
            target = _target(link, page.parent)
            if (place := _place(target)).startswith("files/"):
                made[place] = (ROOT / target).read_text()
    for place, text in made.items():
        files.append(File.generated(config, place, content=text))
    for name in (MERMAID, WORKER):
        if (script := ROOT / "build" / name).exists():
            files.append(File.generated(config, name, abs_src_path=str(script)))
    if files.get_file_from_path(MERMAID):
        config.extra_javascript.append(MERMAID)
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links between files of the repository point at the pages that those files became."""
    source = next((Path(name) for name, place in NOT_IN_DOCS.items() if place == page.file.src_uri), None)
    here = source or Path("docs") / page.file.src_uri

    def mended(link: re.Match[str]) -> str:
        path, hash_, anchor = link[1].partition("#")
        if ":" in path or not path:
            return link[0]
        place = _place(_target(link[1], ROOT / here.parent))
        return f"]({os.path.relpath(place, Path(page.file.src_uri).parent)}{hash_}{anchor})"

    return LINK.sub(mended, markdown)


def _target(link: str, folder: Path) -> str:
    """What a link in a text of this folder leads to, as a path in the repository."""
    return os.path.relpath(folder / link.partition("#")[0], ROOT)


def _place(target: str) -> str:
    """Where a file of the repository is found in the site; a file that does not exist stays where it is."""
    if target in NOT_IN_DOCS:
        return NOT_IN_DOCS[target]
    in_docs = target.removeprefix("docs/")
    return f"files/{target}" if in_docs == target and (ROOT / target).is_file() else in_docs


def on_page_content(content: str, **_: Any) -> str:
    r"""Make MathML of the formulas that arithmatex left between \( \) and \[ \]."""

    def as_mathml(formula: re.Match[str]) -> str:
        display = "block" if formula[1] == "div" else "inline"
        mathml: str = latex2mathml.converter.convert(html.unescape(formula[2]), display=display)
        return mathml.replace("<mi>&#x0007E;</mi>", "<mo>&#x0223C;</mo>")  # a relation, with its space

    return re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', as_mathml, content, flags=re.DOTALL)


def on_post_page(output: str, page: Page, **_: Any) -> str:
    """Take the script that searches from the site itself."""
    if not (ROOT / "build" / WORKER).exists():
        return output
    return output.replace(WORKER_ELSEWHERE, os.path.relpath(WORKER, Path(page.file.dest_uri).parent))


def settings_pages() -> dict[str, str]:
    """A page with the settings that are in no group, and one for each group with all of its options."""
    chosen = {
        group: option
        for command in ("train", "evaluate")
        for entry in yaml.safe_load((CONF / f"{command}.yaml").read_text())["defaults"]
        if isinstance(entry, dict)
        for group, option in entry.items()
    }
    groups = sorted(folder.name for folder in CONF.iterdir() if folder.is_dir())
    rows = [
        f"| [`{group}`]({group}.md) | {_code(chosen.get(group))} | {', '.join(_code(o) for o in _options(group))} |"
        for group in groups
    ]
    pages = {
        "index": "\n".join(
            [
                "# Settings\n",
                "A group is chosen by `GROUP=OPTION`, a single setting by `KEY=VALUE`, and a setting of a group by "
                "`GROUP.KEY=VALUE`: `ddpm train schedule=cosine schedule.T=4000 optimizer.lr=1e-4`. "
                "`ddpm train --cfg job` prints what all of them come to.\n",
                "| group | unless said otherwise | options |\n|---|---|---|",
                *rows,
                "\n## Training\n",
                "These stand beside the groups. `???` is said by the recipe.\n",
                _yaml(CONF / "train.yaml"),
                "\n## Evaluation\n",
                "`ddpm evaluate` has the settings above, as the checkpoint says them, and these.\n",
                _yaml(CONF / "evaluate.yaml"),
            ]
        )
    }
    for group in groups:
        default = f"Unless said otherwise: `{group}={chosen[group]}`.\n" if isinstance(chosen.get(group), str) else ""
        options = "\n".join(_option(group, option) for option in _options(group))
        pages[group] = f"# {group}\n\n{default}\n{options}"
    return {f"reference/settings/{name}.md": text for name, text in pages.items()}


def _options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _option(group: str, option: str) -> str:
    """What the option names, and its settings with their values and comments."""
    file = CONF / group / f"{option}.yaml"
    named = [
        f"It names [`{target.rpartition('.')[2]}`][{target}]. {_said_of(target)}\n"
        for target in re.findall(r"_target_: ([\w.]+)", file.read_text())
    ]
    return "\n".join([f"## {group}={option}\n", *named, _yaml(file)])


def _said_of(target: str) -> str:
    """The first paragraph of the docstring of a class, function or module, as plain text."""
    module, _, name = target.rpartition(".")
    whole = SOURCE / f"{target.replace('.', '/')}.py"
    tree = ast.parse((whole if whole.exists() else SOURCE / f"{module.replace('.', '/')}.py").read_text())
    within = (node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name)
    said = " ".join((ast.get_docstring(next(within, tree)) or "").partition("\n\n")[0].split())
    return re.sub(r"(`[^`]*`)|([*|])", lambda found: found[1] or "\\" + found[2], said)


def _yaml(file: Path) -> str:
    return f"```yaml\n{file.read_text().strip()}\n```\n"


def _code(value: Any) -> str:
    if value is None:
        return ""
    return ", ".join(f"`{each}`" for each in (value if isinstance(value, list) else [value]))


def python_pages() -> dict[str, str]:
    """What `import ddpm` offers, and the modules of each room."""
    front = ast.parse((SOURCE / "ddpm" / "__init__.py").read_text())
    names = next(
        ast.literal_eval(node.value)
        for node in front.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    homes = {
        alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(front)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    own = [name for name in names if homes[name].startswith("ddpm.library.")]
    pages = {
        "index": "\n".join(
            [
                "# Python\n",
                "`import ddpm` offers what stands below, and these classes, which are described with their rooms:",
                ", ".join(f"[`ddpm.{name}`][{homes[name]}]" for name in names if name not in own) + ".\n",
                *(f"::: {homes[name]}\n" for name in own),
            ]
        )
    }
    for room in ROOMS:
        folder = SOURCE / "ddpm" / room
        alone = folder.with_suffix(".py")  # a room that is one file
        modules = sorted(
            ".".join(file.relative_to(SOURCE).with_suffix("").parts)
            for file in ([alone] if alone.is_file() else folder.rglob("*.py"))
            if not file.stem.startswith("__")
        )
        about = ast.get_docstring(ast.parse((alone if alone.is_file() else folder / "__init__.py").read_text())) or ""
        text = "\n".join(f"::: {module}\n    options: {{show_root_full_path: true}}\n" for module in modules)
        pages[room] = f"# ddpm.{room}\n\n{about.partition(chr(10))[0]}\n\n{text}"
    return {f"reference/python/{name}.md": text for name, text in pages.items()}
