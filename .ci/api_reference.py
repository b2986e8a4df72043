"""Docstrings -> the API reference as HTML, or a list of their errors.

    python .ci/api_reference.py                          writes build/api/index.html; needs pip install -e '.[dev]'
    python .ci/api_reference.py facerecon_rt -o FOLDER

Every warning is an error: a module that does not import, an annotation that does not resolve. A name in `backticks`
that looks like ours (module.name, CamelCase or CAPITALS) and does not exist is an error too. Ruff checks that there is
a docstring.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import pkgutil
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pdoc
from pdoc.doc import Doc, Module, Namespace

PACKAGES = ("facerecon_rt", "facerecon_export")
"""Packages of the reference. Training is left out: pdoc cannot resolve the annotations of its named tuples, and it is
no API."""
ELSEWHERE = ("triton_python_backend_utils",)
"""Modules that only a server has. Empty modules in their place let their users be imported."""
IN_BACKTICKS = re.compile(r"(?<!`)`((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*|[A-Z]\w+)`(?!`)")
FILES = (".onnx", ".json", ".jsonl", ".md", ".html", ".npz", ".yaml", ".toml", ".mp4", ".jpg", ".png", ".py")


def specs_of(package: str) -> list[str]:
    """Return the specification that makes pdoc show every module. A package with `__all__` would show only its
    names."""
    module = importlib.import_module(package)
    shown = getattr(module, "__all__", None)
    children = [] if shown is None else [found.name for found in pkgutil.iter_modules(module.__path__)]
    return [package, *(f"{package}.{child}" for child in children if child not in (shown or ()))]


def documented(scope: Namespace[Any]) -> Iterator[Doc[Any]]:
    """Yield a module or class and its public members, at any depth."""
    yield scope
    for member in scope.own_members:
        if isinstance(member, Module) or member.name.startswith("_"):
            continue
        if isinstance(member, Namespace):
            yield from documented(member)
        else:
            yield member


def dead_references(module: Module) -> Iterator[str]:
    """Yield a line for each name in backticks that leads nowhere."""
    for doc in documented(module):
        for name in IN_BACKTICKS.findall(doc.docstring):
            if not name.endswith(FILES) and not resolves(name, sys.modules[doc.taken_from[0] or module.fullname]):
                yield f"{doc.fullname} says `{name}`, which does not exist; names of others need no backticks"


def resolves(name: str, module: Any) -> bool:
    """Return whether a name exists where it is written. Names of other packages count as resolved."""
    first, _, rest = name.partition(".")
    if not rest:
        return any(
            hasattr(place, first) for place in (module, sys.modules[module.__name__.partition(".")[0]], builtins)
        )
    packages = (module.__package__, module.__name__.partition(".")[0])
    scope = next((sys.modules[f"{p}.{first}"] for p in packages if f"{p}.{first}" in sys.modules), None)
    scope = scope or getattr(module, first, None)
    if scope is None:
        return True
    for step in rest.split("."):
        # Fields without a default are not attributes of their class.
        if step in getattr(scope, "__annotations__", ()):
            return True
        scope = getattr(scope, step, None)
    return scope is not None


def main() -> int:
    """Build the reference and return the exit code: 1 if a name leads nowhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "packages", nargs="*", default=PACKAGES, metavar="PACKAGE", help=f"packages to document [{' '.join(PACKAGES)}]"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("build/api"), metavar="FOLDER", help="folder to write [%(default)s]"
    )
    options = parser.parse_args()
    warnings.simplefilter("error")
    sys.modules.update({name: ModuleType(name) for name in ELSEWHERE})
    specs = [spec for package in options.packages for spec in specs_of(package)]
    modules = [Module.from_name(name) for name in pdoc.extract.walk_specs(specs)]
    dead = [line for module in modules for line in dead_references(module)]
    if dead:
        print("\n".join(dead), file=sys.stderr)
        return 1
    pdoc.render.configure(show_source=False)
    pdoc.pdoc(*specs, output_directory=options.output)
    print(f"{len(modules)} modules: {options.output / 'index.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
