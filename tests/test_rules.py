"""Rules for our own code, each for a hole that others had; the seeds below show that each rule finds what it is for.

semgrep would need older versions of a dozen packages beside ours; these few rules need none.
"""

from __future__ import annotations

import ast
import gc
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    *sorted((ROOT / "visahub").rglob("*.py")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted((ROOT / "share").glob("samples/*.py")),
    *sorted((ROOT / "binder").glob("*.py")),
    ROOT / "jupyterhub_config.py",
]
MAY = {
    # Tells whoever starts the demonstration its password, which is made for that.
    "visahub/demo.py": {"logs-secret"},
    # Puts parts of our own pages, which the server has escaped, where they were before.
    "share/static/portal.js": {"safe"},
}
TEMPLATES = sorted(path for path in (ROOT / "share" / "templates").rglob("*") if path.is_file())

_PATHLIKE = re.compile(
    r"path|root|folder|(?<![a-z])dir(?![a-z])|home|base|prefix|realpath|resolve\(|fspath", re.IGNORECASE
)
_SECRET = re.compile(r"token|secret|passw|cookie|credential|crypt_key|authorization|environ|auth_state", re.IGNORECASE)
_LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_SHELLS = {"system", "popen", "create_subprocess_shell", "getoutput", "getstatusoutput"}
_READS_CODE = {"eval", "exec", "__import__"}
_LOADS = {"pickle", "marshal", "shelve", "dill"}


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    """CPython before 3.11.5 fails to parse when its collector runs meanwhile (python/cpython#106905)."""
    gc.disable()
    yield
    gc.enable()


def broken(source: str) -> list[tuple[int, str]]:
    """Gives the lines of a Python source that break a rule, with the rule's name."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            found += [(node.lineno, rule) for rule in _of_call(node)]
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            if _LOADS & {name.split(".")[0] for name in names}:
                found.append((node.lineno, "loads-code"))
    return found


def _of_call(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name in {"setattr", "__setattr__", "delattr"} and not all(_is_text(one) for one in call.args[-2:-1]):
        yield "setattr"
    if name == "update" and re.search(r"__dict__|vars\(", owner):
        yield "setattr"
    if any(one.arg == "shell" and not _is(one.value, False) for one in call.keywords) or name in _SHELLS:
        yield "shell"
    if name in _READS_CODE and isinstance(call.func, ast.Name):
        yield "reads-code"
    if name == "Markup" and not all(_is_text(one) for one in call.args):
        yield "safe"
    if name == "startswith" and call.args and _is_path(owner, call.args[0]):
        yield "startswith"
    is_log = name in _LOGS and re.search(r"\blog(ger|ging)?\b|_log$", owner)
    if (is_log or (name == "print" and not owner)) and any(_names_secret(one) for one in call.args):
        yield "logs-secret"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _is_path(owner: str, start: ast.expr) -> bool:
    """Tells whether one path is compared with the beginning of another without the slash at its end."""
    if isinstance(start, ast.Tuple):
        return any(_is_path(owner, one) for one in start.elts)
    last = start.right if isinstance(start, ast.BinOp) else start
    if isinstance(start, ast.JoinedStr) and start.values:
        last = start.values[-1]
    if isinstance(last, ast.Constant):
        text = str(last.value)
        return "/" in ast.unparse(start) and not text.endswith("/") and bool(_PATHLIKE.search(owner))
    return bool(_PATHLIKE.search(owner) or _PATHLIKE.search(ast.unparse(start)))


def _names_secret(argument: ast.expr) -> bool:
    """Tells whether what is logged is a secret by its name: not the words of the sentence, what is put into it."""
    for node in ast.walk(argument):
        name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
        key = node.slice.value if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) else ""
        if _SECRET.search(name) or _SECRET.search(str(key)):
            return True
    return False


_UNSAFE = re.compile(r"\|\s*safe\b|\{%-?\s*(autoescape\s+(false|None)|raw\b)|\{%-?\s*raw\s|\bMarkup\(|innerHTML\s*=")


def unsafe(template: str) -> list[str]:
    """Gives what a template lets through unescaped."""
    return [found.group() for found in _UNSAFE.finditer(template)]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources(path: Path) -> None:
    found = {rule for _, rule in broken(path.read_text())} - MAY.get(str(path.relative_to(ROOT)), set())
    assert not found, broken(path.read_text())


def test_templates_and_scripts() -> None:
    scripts = sorted((ROOT / "share" / "static").glob("*.js"))
    assert len(TEMPLATES) > 20
    assert len(SOURCES) > 80
    wrong = {str(path.relative_to(ROOT)): unsafe(path.read_text()) for path in [*TEMPLATES, *scripts]}
    assert {path: found for path, found in wrong.items() if found and path not in MAY} == {}
    assert all((ROOT / path).exists() for path in MAY)


WRONG = {
    "setattr(self, key, value)": "setattr",
    "for key, value in body.items(): setattr(spawner, key, value)": "setattr",
    "object.__setattr__(self, name, value)": "setattr",
    "spawner.__dict__.update(body)": "setattr",
    "vars(spawner).update(body)": "setattr",
    "if str(path).startswith(str(root)): pass": "startswith",
    "path.startswith('/data/p1')": "startswith",
    "os.path.realpath(name).startswith(allowed)": "startswith",
    "name.startswith(self.data_root)": "startswith",
    "file.resolve().as_posix().startswith(f'/data/{proposal}')": "startswith",
    "subprocess.run(f'ls {name}', shell=True)": "shell",
    "subprocess.run(command, shell=is_shell)": "shell",
    "os.system('ls')": "shell",
    "await asyncio.create_subprocess_shell(command)": "shell",
    "eval(text)": "reads-code",
    "import pickle": "loads-code",
    "from pickle import loads": "loads-code",
    "Markup(text)": "safe",
    "Markup(f'<b>{name}</b>')": "safe",
    "log.info('token %s', token)": "logs-secret",
    "self.log.debug('%s', spawner.api_token)": "logs-secret",
    "log.warning(f'{user.password}')": "logs-secret",
    "logging.error('%s', os.environ)": "logs-secret",
    "log.info('%s', headers['Authorization'])": "logs-secret",
    "print(secret)": "logs-secret",
}
RIGHT = [
    "setattr(self, 'name', value)",
    "path.startswith('/data/p1/')",
    "path.startswith(prefix + 'api/')",
    "path.name.startswith('.')",
    "url.startswith('sqlite:///')",
    "subprocess.run(['ls', name], shell=False)",
    "Markup('<a href=\"{}\">').format(address)",
    "log.info('The token of %s has ended', name)",
    "log.exception('Looking failed')",
    "self.finish(text)",
]


@pytest.mark.parametrize("source", WRONG)
def test_wrong_is_found(source: str) -> None:
    assert [rule for _, rule in broken(source)] == [WRONG[source]]


@pytest.mark.parametrize("source", RIGHT)
def test_right_is_left(source: str) -> None:
    assert broken(source) == []


@pytest.mark.parametrize(
    "template",
    ["{{ url | safe }}", "{{ url|safe }}", "{% autoescape false %}", "{%- raw name %}", "node.innerHTML = text"],
)
def test_unsafe_template_is_found(template: str) -> None:
    assert unsafe(template)
    assert not unsafe("{{ url }} is safe to open, {{ name|e }}, {% if safe %}")
