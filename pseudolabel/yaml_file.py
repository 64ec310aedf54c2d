"""YAML that nobody has checked: of bounded size and depth, without aliases, told about in short words."""

import stat
from pathlib import Path
from typing import Any, NoReturn

import yaml
from yaml.nodes import MappingNode, Node, SequenceNode

from pseudolabel.errors import InputError, MachineError

MOST_BYTES = 4 << 20
_MOST_DEPTH = 40
_SHOWN = 120


def read_yaml(path: Path, *, most_bytes: int = MOST_BYTES) -> Any:
    """The content of a YAML file.

    Raises:
        InputError: missing, no regular file, too large, not UTF-8, or not such YAML; with line and column.
    """
    return parse_yaml(read_small_text(path, most_bytes=most_bytes), where=str(path))


def parse_yaml(text: str, *, where: str) -> Any:
    """The content of YAML text.

    Raises:
        InputError: it is not YAML, has an alias or a key twice, or is nested too deep.
    """
    try:
        return yaml.load(text, _Reader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{where}{place}: not YAML ({_short(error.problem or error.context)})") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: not YAML ({_short(error)})") from None


def dump_yaml(values: Any) -> str:
    """YAML of plain values in their order, without aliases, so that `parse_yaml` reads it."""
    text: str = yaml.dump(values, Dumper=_Writer, sort_keys=False, allow_unicode=True)
    return text


def read_small_text(path: Path, *, most_bytes: int = MOST_BYTES) -> str:
    """The text of a small file: a card, a config, a list of names.

    Raises:
        InputError: missing, no regular file, larger than `most_bytes`, or not UTF-8.
        MachineError: it may not be read.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise InputError(f"{path}: not a regular file")
        if found.st_size > most_bytes:
            raise InputError(f"{path}: {found.st_size} bytes; such a file has at most {most_bytes}")
        return path.read_bytes().decode("utf-8-sig")
    except PermissionError as error:
        raise MachineError(f"{path}: cannot be read: {error.strerror}") from None
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8 text") from None


class _Reader(yaml.SafeLoader):
    """Refuses what makes a small file large, and what hides one value behind another."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            self._refuse("aliases (*name) are not read")
        self._depth += 1
        if self._depth > _MOST_DEPTH:
            self._refuse(f"nested more than {_MOST_DEPTH} deep")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refuse(self, problem: str) -> NoReturn:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it untyped
        raise yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        self._refuse_doubles(node)
        return super().construct_mapping(node, deep=deep)

    def _refuse_doubles(self, node: MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            name = f"{key.tag} {key.value}" if not isinstance(key, MappingNode | SequenceNode) else ""
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value!r:.60} stands there twice", problem_mark=key.start_mark)
            seen |= {name} - {""}


class _Writer(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _short(error: object) -> str:
    return " ".join(str(error).split())[:_SHOWN]
