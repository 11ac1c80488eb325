"""Facts that classes state about themselves, read from their source, so that a refusal need not wait for torch.

A fact is a class attribute with a literal value: `learned = True` in a variance. Rules of refusal, tables and reports
ask for the fact of the class that a configuration names, never for the name of an option; so a copy of an option under
another name, or a user's own, is judged as the class that it builds.
"""

import ast
import functools
import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def fact(target: str, name: str) -> Any:
    """The value of the class attribute `name` of the class at the dotted path `target`; None if it states none.

    The source is read where it says so in plain sight, in the class or in one that it inherits from; elsewhere (a fact
    that is computed) the class is imported.
    """
    module, _, cls = target.rpartition(".")
    if module not in sys.modules:
        found, value = _stated(module, cls, name)
        if found:
            return value
    return getattr(_imported(module, cls), name, None)


def _stated(module: str, cls: str, name: str) -> tuple[bool, Any]:
    """Whether the source states the fact, and its value."""
    classes, imported = _source(module)
    definition = classes.get(cls)
    if definition is None:
        return False, None
    for statement in definition.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                pass
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                pass
            case _:
                continue
        try:
            return True, ast.literal_eval(value)
        except ValueError:
            return False, None
    for base in definition.bases:
        if isinstance(base, ast.Name) and base.id in {**classes, **imported}:
            there, value = _stated(*imported.get(base.id, (module, base.id)), name)
            if there:
                return True, value
    return False, None


@functools.cache
def _source(module: str) -> tuple[dict[str, ast.ClassDef], dict[str, tuple[str, str]]]:
    """The classes that a module defines; and for each name that it imports, from which module, and its name there."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return {}, {}
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return {}, {}
    body = ast.parse(Path(spec.origin).read_bytes()).body
    imports = (node for node in body if isinstance(node, ast.ImportFrom) and node.module and not node.level)
    return (
        {node.name: node for node in body if isinstance(node, ast.ClassDef)},
        {alias.asname or alias.name: (str(node.module), alias.name) for node in imports for alias in node.names},
    )


def _imported(module: str, cls: str) -> Any:
    try:
        return getattr(importlib.import_module(module), cls, None)
    except ImportError:
        return None
