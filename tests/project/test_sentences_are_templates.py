"""What the package says to people is made with ``t``: an f-string, ``+``, ``%`` or ``.format`` would lose the template.

The tree is read, not run. Two rules: in the places where a sentence is given (errors, prompts, problems, hints) no text
is put together; and anywhere else no text with words in it is, unless it stands in the short list of what is no
sentence. A third one holds the templates to what a translator can read.
"""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from string import Formatter

import pytest

import medcrypt_hsm
from medcrypt_hsm.errors import MedcryptError
from medcrypt_hsm.sentences import restored
from tests.support.checkout import ROOT

# Methods of the console, and where they take a sentence: places of arguments, or their keywords.
SAYING: dict[str, tuple[int | str, ...]] = {
    "say": (0,),
    "say_lines": (0,),
    "show_lines": (0,),
    "warn": (0,),
    "detail": (0,),
    "working": (0,),
    "open_vault": (0,),
    "ask_secret": (0,),
    "ask_new_secret": (0,),
    "agree": (0, "what"),
}
# Lists of sentences, and variables and attributes that hold one.
LISTS = {"problems", "first", "last", "wrong", "forged", "unproven", "reasons"}
HOLDERS = {"hint", "message", "problem", "question", "why", "said"}
# For developers: misuse of the library, never shown to a person.
BUILTIN = {"RuntimeError", "ValueError", "TypeError", "AttributeError", "KeyError", "FileExistsError", "AssertionError"}
MAKERS = {"t", "counted", "template"}
TEXT_OF_WORDS = re.compile(r"[A-Za-z]{2,}[,;:.]? [A-Za-z\0]{2,}|[A-Za-z]{2,}[,;:.]? \0|\0[,;:.]? [A-Za-z]{2,}")
# What is no sentence though it has words; \0 stands for a value.
NO_SENTENCE = re.compile(
    "|".join(
        [
            r"medcrypt (kek|audit|anchor|request|request-kek|request-sign|\0)( |$)",  # names of objects on tokens
            r"medcrypt \0\n$",  # --version
            r"ykman --device \0 piv [a-z -]*$",  # a command to copy
            r"SELECT |PRAGMA ",
            r"<|default-src ",  # HTML and its policy
            r"YubiKey \0$",  # a token's own name
            r"REHEARSAL \0",  # a mark before each line
            r"to \0$|journal \0$",  # the rehearsal's messages and files
            r"return value \0",  # of a foreign library's error
            r"Frame\(|\0\(of a session\)|\0\(on \0\)",  # representations
            r'\{"schema"',
            r"MEDCRYPT:",
            r"-----BEGIN",
        ]
    )
)


def error_classes() -> set[str]:
    """The names of every error of the program, wherever it is defined."""
    for module in pkgutil.walk_packages(medcrypt_hsm.__path__, "medcrypt_hsm."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = set(), [MedcryptError]
    while left:
        kind = left.pop()
        found.add(kind.__name__)
        left += kind.__subclasses__()
    return found


def name_of(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def text_of(node: ast.expr) -> str | None:
    """A literal or an f-string with its values as \\0; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "\0" for v in node.values)
    return None


def put_together(node: ast.expr) -> Iterator[ast.expr]:
    """The parts of a sentence's expression that lose the template."""
    match node:
        case ast.JoinedStr():
            yield node
        case ast.BinOp(op=ast.Add() | ast.Mod()):
            yield node
        case ast.Call(func=ast.Attribute(value=value, attr="format" | "join" | "format_map")) if (
            text_of(value) is not None
        ):
            yield node
        case ast.IfExp(body=body, orelse=orelse):
            yield from put_together(body)
            yield from put_together(orelse)
        case ast.BoolOp(values=values):
            for value in values:
                yield from put_together(value)
        case ast.NamedExpr(value=value) | ast.Starred(value=value):
            yield from put_together(value)
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            for element in elements:
                yield from put_together(element)
        case ast.ListComp(elt=element) | ast.GeneratorExp(elt=element):
            yield from put_together(element)


def sentences(tree: ast.AST, errors: set[str]) -> Iterator[ast.expr]:
    """The expressions in places where a sentence is given."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=arguments, keywords=keywords):
                name = name_of(func)
                if name in errors:
                    yield from arguments
                    yield from (given.value for given in keywords if given.arg in ("message", "hint", "why"))
                elif isinstance(func, ast.Attribute) and name in SAYING:
                    yield from (argument for place, argument in enumerate(arguments) if place in SAYING[name])
                    yield from (given.value for given in keywords if given.arg in SAYING[name])
                elif isinstance(func, ast.Attribute) and name == "append" and name_of(func.value) in LISTS:
                    yield from arguments
            case ast.Assign(targets=[target], value=value) if name_of(target) in HOLDERS:
                yield value
            case ast.AugAssign(target=target, value=value) if name_of(target) in LISTS | HOLDERS:
                if name_of(target) in HOLDERS:
                    yield ast.BinOp(target, ast.Add(), value, lineno=node.lineno, col_offset=node.col_offset)
                else:
                    yield value


def for_developers(tree: ast.AST) -> set[ast.AST]:
    """Everything inside errors of misuse, representations, and calls that compile or match a pattern."""
    found: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and name_of(node.func) in BUILTIN | {"compile", "execute", "import_module"}:
            found.update(ast.walk(node))
        if isinstance(node, ast.FunctionDef) and node.name in ("__repr__", "_origin"):
            found.update(ast.walk(node))
    return found


def with_words(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every text with words that is put together, but for what is no sentence."""
    left_out = for_developers(tree)
    for node in ast.walk(tree):
        texts: list[str | None] = []
        match node:
            case ast.JoinedStr():
                texts = [text_of(node)]
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                before, after = text_of(left), text_of(right)
                texts = [before and before + "\0", after and "\0" + after]
            case ast.BinOp(left=left, op=ast.Mod()):
                texts = [re.sub(r"%\w", "\0", text_of(left) or "")]
            case ast.AugAssign(op=ast.Add(), value=value):
                after = text_of(value)
                texts = [after and "\0" + after]
            case ast.Call(func=ast.Attribute(value=value, attr="format" | "format_map")):
                texts = [re.sub(r"\{[^{}]*\}", "\0", text_of(value) or "")]
        for text in texts:
            if text and node not in left_out and TEXT_OF_WORDS.search(text) and not NO_SENTENCE.match(text):
                yield node, text


def fields_of(made: str) -> list[tuple[str, str | None, str | None, str | None]]:
    try:
        return [field for field in Formatter().parse(made) if field[1] is not None]
    except ValueError:
        return []


def wrong_templates(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """A template is a literal whose fields are the names of the values that are given."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    tables = any(name_of(call.func) == "template" for call in calls)
    for call in calls:
        maker = name_of(call.func)
        if maker not in MAKERS:
            continue
        templates = call.args[1:3] if maker == "counted" else call.args[:1]
        given = {keyword.arg for keyword in call.keywords}
        for made in templates:
            if not isinstance(made, ast.Constant) or not isinstance(made.value, str):
                if not (maker == "t" and tables and isinstance(made, (ast.Name, ast.Subscript))):
                    yield call, "the template is no literal"
                continue
            names = {field[1] for field in fields_of(made.value)}
            try:
                restored(made.value, {str(name): 0 for name in names})
            except ValueError:
                yield call, "no other process would take this template"
                continue
            own = {"count"} if maker == "counted" else set()
            if maker != "template" and None not in given and names - own != given:
                yield call, "the fields are not the values that are given"


def refused(source: str, errors: set[str]) -> list[str]:
    tree = ast.parse(source)
    found = {(node.lineno, "put together") for place in sentences(tree, errors) for node in put_together(place)}
    found |= {(getattr(node, "lineno", 0), f"put together: {text!r}") for node, text in with_words(tree)}
    found |= {(getattr(node, "lineno", 0), why) for node, why in wrong_templates(tree)}
    return [f"{line}: {why}" for line, why in sorted(found)]


def test_sentences_are_templates() -> None:
    errors = error_classes()
    wrong = []
    for path in sorted((ROOT / "medcrypt_hsm").rglob("*.py")):
        if path.name != "sentences.py":
            wrong += [f"{path.relative_to(ROOT)}:{found}" for found in refused(path.read_text(), errors)]
    assert not wrong, "use t(…) of medcrypt_hsm/sentences.py:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        'raise UsageError(f"{path} is not a file")',
        'raise UsageError(f"{path}")',
        'raise errors.UsageError("all is well", f"see {path}")',
        'raise UsageError("all is well", hint="see " + path)',
        'raise UsageError("all is %s" % state)',
        'raise UsageError("all is {}".format(state))',
        'raise UsageError("; ".join(problems))',
        'raise UsageError("fine" if fine else f"{path} is not")',
        'raise UsageError(why or f"{path}: {reason}")',
        'raise BreakGlassRefused(Rule.BG_1, f"{name} is there twice")',
        'return VaultBusy(message=f"{path}")',
        'run.console.say(f"{line}")',
        'console.warn("beware of " + name)',
        'console.agree(question, word, yes=yes, what=f"{name}")',
        'with run.open_vault(f"{what}"): pass',
        'problems.append(f"{name}: {reason}")',
        'problems += [f"{name}" for name in names]',
        'exc.hint = f"{hint}"',
        'exc.hint += ". And more"',
        'hint = f"{one}{two}"',
        'what += ", whose signature is of no token"',
        'lines.append(f"the backup {file} ends")',
        'return f"token {name}"',
        'text = f"{count} messages"',
        'text = "token " + name',
        'text = name + " is removed"',
        'text = "the token %s" % name',
        'text = "the token {0}".format(name)',
        't(f"the token {name}")',
        't(text)',
        't("the token {name}")',
        't("the token {name}", token=name)',
        't("the token {token.name}", token=token)',
        't("the token {}", name=name)',
        't("the token {0}", name=name)',
        't("the token {name", name=name)',
        't("the token {name:{width}}", name=name, width=3)',
        't("the time is {time:%Y-%m-%d}", time=time)',
        'counted(count, "{count} month", text)',
        'counted(count, "{count} {what}", "{count} months")',
    ],
)  # fmt: skip
def test_what_would_lose_the_template_is_refused(source: str) -> None:
    assert refused(source, error_classes())


@pytest.mark.parametrize(
    "source",
    [
        'raise UsageError("name another file", "see \'medcrypt --help\'")',
        'raise UsageError("name another "\n    "file")',
        'raise UsageError(t("{path} is not a file", path=path), t("see {path!a}, {count:,}", path=path, count=3))',
        'raise UsageError(_WHY[name] if name else other.message)',
        'raise UsageError(joined("; ", problems))',
        'raise RuntimeError(f"{name} was closed before")',
        'problems.append(t("{name} is due", name=name))',
        'console.say(_header(result))',
        'console.say(counted(count, "{count} month", "{count} months"))',
        't("{first} and {second}", **values)',
        'X = {1: template("{token} is full")}\nt(X[1], token=token)',
        'label = f"medcrypt kek {vault_id.hex()} {generation}"',
        'row = f"{generation}:{name}"',
        'uri = f"pkcs11:{path}"',
        'def __repr__(self):\n    return f"Opened({self.number}, read {self.status})"',
        'db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")',
    ],
)  # fmt: skip
def test_what_is_no_sentence_or_keeps_its_template_passes(source: str) -> None:
    assert not refused(source, error_classes())
