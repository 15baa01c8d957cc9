"""What the syntax tree of one file tells. Pure functions: nothing here knows of actors."""

import ast
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

import msgspec

KINDS = ("unreadable file", "dangerous call", "complex function", "dead import", "missing docstring")
DANGEROUS = {"eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads", "marshal.loads", "tempfile.mktemp"}
BRANCHES = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.BoolOp, ast.comprehension)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PARSING = Lock()  # Python 3.11 counts the depth of all trees that are being made as one, and fails if that is not so


class Finding(msgspec.Struct, frozen=True):
    kind: str
    line: int
    text: str


class Review(msgspec.Struct, frozen=True):
    path: str
    findings: tuple[Finding, ...]


def review(root: str, path: str) -> Review:
    """Review one file. That it cannot be read or parsed is a finding, the only one then."""
    try:
        tree = parsed(root, path)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", "") or getattr(error, "strerror", "") or str(error) or type(error).__name__
        return Review(path, (Finding("unreadable file", getattr(error, "lineno", 0) or 1, reason),))
    return Review(path, tuple(sorted(findings(tree, path), key=lambda finding: finding.line)))


def advise(root: str, path: str) -> str:  # where to begin with a file
    worst = max((n for n in ast.walk(parsed(root, path)) if isinstance(n, FUNCTIONS)), key=branches, default=None)
    return f"begin with {worst.name} in line {worst.lineno}" if worst else "it has no functions"


def parsed(root: str, path: str) -> ast.Module:
    with PARSING:
        return ast.parse(Path(root, path).read_bytes())


def branches(function: ast.AST) -> int:
    return sum(isinstance(node, BRANCHES) for node in ast.walk(function))


def findings(tree: ast.AST, path: str) -> Iterator[Finding]:
    imported: dict[str, int] = {}
    used: set[object] = {"*"}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if (count := branches(node)) > 10:
                yield Finding("complex function", node.lineno, f"{node.name} has {count} branches")
            case ast.Call(func=ast.Name() | ast.Attribute() as called) if (name := ast.unparse(called)) in DANGEROUS:
                yield Finding("dangerous call", node.lineno, name)
            case ast.Module(body=body) | ast.ClassDef(body=body):
                public = [each for each in body if isinstance(each, (*FUNCTIONS, ast.ClassDef)) and each.name[0] != "_"]
                bare = [each for each in public if not ast.get_docstring(each)]
                yield from (Finding("missing docstring", each.lineno, each.name) for each in bare)
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Constant(value=name):
                used.add(name)  # strings too: `__all__` and annotations may hold names
            case ast.Import(names=names) | ast.ImportFrom(names=names) if getattr(node, "module", "") != "__future__":
                imported |= {each.asname or each.name.partition(".")[0]: node.lineno for each in names}
    if not path.endswith("__init__.py"):  # what a package imports, it offers
        yield from (Finding("dead import", line, name) for name, line in imported.items() if name not in used)
