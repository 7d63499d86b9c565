"""The house rules no other tool keeps: sizes, names, and a ban list that says what to write.

Every check takes a folder, so that each is shown to block and to pass on a small tree of its own.
"""

import ast
import io
import re
import statistics
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES: tuple[str, ...] = ("core", "strategies", "risk", "execution", "markets")
SOURCES += ("forecasting", "backtest", "research", "daemon", "config")
FILE_LINES_MAX, FUNCTION_LINES_MAX, FUNCTION_LINES_MEDIAN_MAX = 500, 70, 12

CLOCK = ("daemon/clock.py",)
# The engine keeps what an author's Python raises, because it cannot cross compiled code.
CATCH_ALL = ("daemon/supervisor.py", "core/engine.py")

CHANCE = ("backtest/", "research/", "markets/synthetic.py")

# What not to write, what to write instead, and where it may stand all the same.
BANS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (r"\bdatetime\.(now|utcnow)\(", "take the time from an event or the daemon's clock", CLOCK),
    (r"\btime\.time(_ns)?\(", "take the time from an event or the daemon's clock", CLOCK),
    (r"\b(np|numpy)\.random\b", "chance comes in from outside", CHANCE),
    (r"\bexcept\b.*\b(Base)?Exception\b", "name what you expect", CATCH_ALL),
    (r"\bexcept\s*:", "name what you expect", ()),
    (r"(?<![\w.])print\(", "return it, or log it", ("daemon/",)),
    (r"(?<![\w.])(eval|exec)\(", "parse it", ()),
    (r"\bpickle\b|allow_pickle=True", "use a format that cannot run code", ()),
    (r"#.*\b(FIXME|TODO|XXX)\b", "do it now, or open an issue", ()),
    (r"#\s*type:\s*ignore(?!\[)", "name the code: type: ignore[arg-type]", ()),
)
VAGUE_NAME = re.compile(r"(^|_)(manager|handler|helper|util)s?(_|$)")


def sources(root: Path) -> Iterator[tuple[str, str]]:
    """Every source file: its path from the root, and its text."""
    for package in SOURCES:
        for path in sorted((root / package).rglob("*.py")):
            yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def function_lengths(root: Path) -> list[tuple[str, int]]:
    return [
        (f"{name}:{node.lineno} {node.name}", (node.end_lineno or 0) - node.lineno + 1)
        for name, text in sources(root)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def lines_without_strings(text: str) -> list[str]:
    """Code and comments only: a text may speak of what code may not do."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if tokenize.tok_name[token.type] in {"STRING", "FSTRING_MIDDLE"}:
            (first, start), (last, end) = token.start, token.end
            for row in range(first - 1, last):
                left = start if row == first - 1 else 0
                right = end if row == last - 1 else len(lines[row])
                lines[row] = lines[row][:left] + " " * (right - left) + lines[row][right:]
    return lines


def modules_without_a_docstring(root: Path) -> list[str]:
    return [name for name, text in sources(root) if not ast.get_docstring(ast.parse(text))]


def long_functions(root: Path) -> list[str]:
    return [f"{at}: {n} lines" for at, n in function_lengths(root) if n > FUNCTION_LINES_MAX]


def long_files(root: Path) -> list[str]:
    lengths = [(name, len(text.splitlines())) for name, text in sources(root)]
    return [f"{name}: {n} lines" for name, n in lengths if n > FILE_LINES_MAX]


def long_median(root: Path) -> list[str]:
    median = statistics.median([n for _, n in function_lengths(root)] or [0])
    return [f"the median: {median} lines"] if median > FUNCTION_LINES_MEDIAN_MAX else []


def banned_phrases(root: Path) -> list[str]:
    return [
        f"{name}:{number} {line.strip()} -> {instead}"
        for name, text in sources(root)
        for number, line in enumerate(lines_without_strings(text), 1)
        for pattern, instead, allowed in BANS
        if re.search(pattern, line) and not name.startswith(allowed)
    ]


def vague_names(root: Path) -> list[str]:
    paths = [path for package in (*SOURCES, "tests") for path in (root / package).rglob("*")]
    named = [path for path in paths if path.is_dir() or path.suffix == ".py"]
    return [f"{path}: say what it does" for path in named if VAGUE_NAME.search(path.stem.lower())]


def hosts_in_packaging(root: Path) -> list[str]:
    files = [*root.glob("requirements*.lock"), *root.glob("pyproject.toml")]
    lines = [(path.name, line) for path in files for line in path.read_text("utf-8").splitlines()]
    return [f"{name}: {line}" for name, line in lines if "://" in line]


def unpinned_dependencies(root: Path) -> list[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))
    wanted = project["project"]["dependencies"] + project["build-system"]["requires"]
    wanted += project["project"].get("optional-dependencies", {}).get("test", [])
    names = [re.split(r"[^\w.-]", name)[0].lower().replace("_", "-") for name in wanted]
    lock = (root / "requirements.lock").read_text("utf-8")
    return [name for name in names if not re.search(rf"(?m)^{re.escape(name)}(\[.*\])?==", lock)]


def test_every_module_says_what_it_is_for() -> None:
    assert modules_without_a_docstring(ROOT) == []


def test_no_function_is_longer_than_a_screen() -> None:
    assert long_functions(ROOT) == []


def test_no_file_is_longer_than_a_sitting() -> None:
    assert long_files(ROOT) == []


def test_most_functions_are_short() -> None:
    assert long_median(ROOT) == []


def test_nothing_banned_is_written() -> None:
    assert banned_phrases(ROOT) == []


def test_no_name_is_vague() -> None:
    assert vague_names(ROOT) == []


def test_the_locks_name_no_host() -> None:
    assert hosts_in_packaging(ROOT) == []


def test_the_lock_pins_every_dependency() -> None:
    assert unpinned_dependencies(ROOT) == []


def function_of(lines: int) -> str:
    return "def f():\n" + "    pass\n" * (lines - 1)


# A check, a file it passes, and a file it blocks.
PROOFS = [
    (modules_without_a_docstring, ("core/a.py", '"""Why."""\n'), ("core/a.py", "x = 1\n")),
    (long_functions, ("core/a.py", function_of(70)), ("core/a.py", function_of(71))),
    (long_files, ("core/a.py", "x = 1\n" * 500), ("core/a.py", "x = 1\n" * 501)),
    (long_median, ("core/a.py", function_of(12)), ("core/a.py", function_of(13))),
    (vague_names, ("core/ledger.py", ""), ("core/order_manager.py", "")),
    (vague_names, ("core/useful/a.py", ""), ("tests/helpers/a.py", "")),
    (hosts_in_packaging, ("requirements.lock", "a==1"), ("requirements.lock", "a @ https://b")),
    *(
        (banned_phrases, (allowed, f"{phrase}\n"), (refused, f"{phrase}\n"))
        for allowed, refused, phrase in [
            ("daemon/clock.py", "daemon/api.py", "now = datetime.now(UTC)"),
            ("daemon/clock.py", "core/a.py", "now = time.time()"),
            ("backtest/a.py", "strategies/a.py", "rng = np.random.default_rng(1)"),
            ("daemon/main.py", "backtest/a.py", "print(x)"),
            ("daemon/supervisor.py", "daemon/api.py", "try: pass\nexcept Exception: pass"),
        ]
    ),
    *(
        (banned_phrases, ("core/a.py", f"{passes}\n"), ("core/a.py", f"{blocks}\n"))
        for passes, blocks in [
            ("try: pass\nexcept ValueError: pass", "try: pass\nexcept Exception: pass"),
            ("try: pass\nexcept LockstepError: pass", "try: pass\nexcept (A, BaseException): pass"),
            ("try: pass\nexcept ImportError: pass", "try: pass\nexcept: pass"),
            ("x = frame.eval(y)", "x = eval(y)"),
            ("np.load(f, allow_pickle=False)", "import pickle"),
            ("# done", "# TODO: later"),
            ("x = y  # type: ignore[misc]", "x = y  # type: ignore"),
            ('"""Never call time.time() or\nprint() here."""', "console = print(1)"),
        ]
    ),
]


def test_a_dependency_that_the_lock_lacks_is_found(tmp_path: Path) -> None:
    (tmp_path / "requirements.lock").write_text("a-b[c]==1 \\\nd==2\n")
    (tmp_path / "pyproject.toml").write_text(
        '[project]\ndependencies = ["A_b[c]>=1", "e"]\n[build-system]\nrequires = ["d"]\n'
    )
    assert unpinned_dependencies(tmp_path) == ["e"]


@pytest.mark.parametrize(("check", "passes", "blocks"), PROOFS)
def test_each_check_passes_what_is_tidy_and_blocks_what_is_not(
    tmp_path: Path,
    check: Callable[[Path], list[str]],
    passes: tuple[str, str],
    blocks: tuple[str, str],
) -> None:
    for folder, (name, text), findings in (("good", passes, 0), ("bad", blocks, 1)):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
        assert len(check(tmp_path / folder)) == findings
